package rpc

import (
	"bufio"
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clary-ml/clary/coordinator/backup"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/quorum"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// Quorum is the life of the set of coordinators. Only the leader's changes anything.
type Quorum interface {
	Admit(ctx context.Context, a quorum.Applicant) (voter bool, behind uint64, err error)
	Members(ctx context.Context) ([]quorum.Member, error)
	Remove(ctx context.Context, id string, force bool) (accepted []string, elsewhere bool, err error)
	Transfer(ctx context.Context, to string) (leader string, err error)
	Formats(members []quorum.Member) (inForce int, heldBack string, err error)
	Standing() *claryv1.StandingResponse
}

// clusters serves operators: who decides, and what they know.
type clusters struct {
	claryv1.UnimplementedClusterServer
	replica Replica
	leader  leaderConns
	quorum  Quorum
	// snapshot writes one of what the cluster has agreed on.
	snapshot func(ctx context.Context, to io.Writer) error
	backups  Backups
}

// Backups are the cluster's. Only the leader makes any.
type Backups interface {
	Make(ctx context.Context) (backup.File, backup.Header, error)
	List(ctx context.Context) ([]backup.File, error)
	// Failed is why the last that was tried was not made, "" if it was.
	Failed() string
}

// Members is answered by the leader, and where there is none by whoever was asked.
func (s *clusters) Members(ctx context.Context, request *claryv1.MembersRequest) (*claryv1.MembersResponse, error) {
	if conn, err := s.leader.elsewhere(); err == nil && conn != nil {
		answer, err := claryv1.NewClusterClient(conn).Members(forwarded(ctx), request)
		if status.Code(err) != codes.Unimplemented { // by a leader of an earlier version: see for yourself
			return answer, err
		}
	}
	members, err := s.quorum.Members(ctx)
	if err != nil {
		return nil, err
	}
	answer := &claryv1.MembersResponse{Newest: command.Format}
	for _, m := range members {
		answer.Members = append(answer.Members, &claryv1.CoordinatorMember{
			Id: m.ID, Address: m.Address, Voter: m.Voter, Leader: m.Leader, Alive: m.Alive, Version: m.Version, Format: int32(m.Format),
			Applied: m.Applied, Behind: m.Behind, Problem: m.Problem, DiskFree: m.Disk.Free,
		})
	}
	inForce, heldBack, err := s.quorum.Formats(members)
	if err != nil {
		return nil, err
	}
	answer.Format, answer.HeldBack = int32(inForce), heldBack
	for _, held := range command.Beyond(inForce) {
		answer.Waiting = append(answer.Waiting, &claryv1.HeldBack{Format: int32(held.Format), What: held.What})
	}
	return answer, nil
}

// Remove is done by the leader. If that is the one to be removed, it hands over, and the next leader does it.
func (s *clusters) Remove(ctx context.Context, request *claryv1.RemoveCoordinatorRequest) (*claryv1.RemoveCoordinatorResponse, error) {
	conn, err := s.leader.elsewhere()
	if err != nil {
		return nil, err
	}
	if conn == nil {
		accepted, elsewhere, err := s.quorum.Remove(ctx, request.GetId(), request.GetForce())
		if err != nil || !elsewhere {
			return &claryv1.RemoveCoordinatorResponse{Accepted: accepted}, err
		}
		switch conn, err = s.leader.elsewhere(); {
		case err != nil:
			return nil, err
		case conn == nil:
			return nil, fault.New(fault.Unready, "coordinator %s handed over, and leads again: ask again", request.GetId())
		}
	}
	answer, err := claryv1.NewClusterClient(conn).Remove(forwarded(ctx), request)
	return answer, s.tooOld(err)
}

// tooOld says why a leader of an earlier version does not do what it is asked.
func (s *clusters) tooOld(err error) error {
	if status.Code(err) != codes.Unimplemented {
		return err
	}
	return fault.New(fault.Conflict, "the leader %s is of an earlier version, which cannot do that: upgrade it, or restart it, so that another leads", s.replica.Leader())
}

// Transfer is done by the leader.
func (s *clusters) Transfer(ctx context.Context, request *claryv1.TransferRequest) (*claryv1.TransferResponse, error) {
	conn, err := s.leader.elsewhere()
	if err != nil {
		return nil, err
	}
	if conn != nil {
		answer, err := claryv1.NewClusterClient(conn).Transfer(forwarded(ctx), request)
		return answer, s.tooOld(err)
	}
	leader, err := s.quorum.Transfer(ctx, request.GetTo())
	return &claryv1.TransferResponse{Leader: leader}, err
}

// TakeSnapshot copies all that the cluster has agreed on, from whichever coordinator was asked: it reads linearizably.
func (s *clusters) TakeSnapshot(_ *claryv1.TakeSnapshotRequest, stream grpc.ServerStreamingServer[claryv1.TakeSnapshotResponse]) error {
	if s.snapshot == nil {
		return fault.New(fault.Unready, "this coordinator takes no snapshots")
	}
	buffered := bufio.NewWriterSize(snapshotWriter{stream}, 256<<10)
	if err := s.snapshot(stream.Context(), buffered); err != nil {
		return err
	}
	return buffered.Flush()
}

// snapshotWriter sends what is written.
type snapshotWriter struct {
	stream grpc.ServerStreamingServer[claryv1.TakeSnapshotResponse]
}

func (w snapshotWriter) Write(data []byte) (int, error) {
	return len(data), w.stream.Send(&claryv1.TakeSnapshotResponse{Data: data})
}

// Backup is made by the leader.
func (s *clusters) Backup(ctx context.Context, request *claryv1.BackupRequest) (*claryv1.BackupResponse, error) {
	conn, err := s.leader.elsewhere()
	if err != nil {
		return nil, err
	}
	if conn != nil {
		answer, err := claryv1.NewClusterClient(conn).Backup(forwarded(ctx), request)
		return answer, s.tooOld(err)
	}
	if s.backups == nil {
		return nil, fault.New(fault.Unready, "this coordinator makes no backups")
	}
	file, header, err := s.backups.Make(ctx)
	if err != nil {
		return nil, err
	}
	return &claryv1.BackupResponse{Backup: backupFile(file), Revision: header.Revision}, nil
}

// ListBackups is answered by the leader, which knows why there is none.
func (s *clusters) ListBackups(ctx context.Context, request *claryv1.ListBackupsRequest) (*claryv1.ListBackupsResponse, error) {
	conn, err := s.leader.elsewhere()
	if err != nil {
		return nil, err
	}
	if conn != nil {
		answer, err := claryv1.NewClusterClient(conn).ListBackups(forwarded(ctx), request)
		return answer, s.tooOld(err)
	}
	if s.backups == nil {
		return nil, fault.New(fault.Unready, "this coordinator makes no backups")
	}
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	set := snapshot.Settings().Backup
	snapshot.Close()
	answer := &claryv1.ListBackupsResponse{Every: int64(set.Every), To: set.To, Failed: s.backups.Failed()}
	if set.To == "" {
		return answer, nil
	}
	files, err := s.backups.List(ctx)
	if err != nil {
		answer.Failed = err.Error()
	}
	for _, file := range files {
		answer.Backups = append(answer.Backups, backupFile(file))
	}
	return answer, nil
}

func backupFile(f backup.File) *claryv1.BackupFile {
	return &claryv1.BackupFile{Uri: f.URI, Size: f.Size, Made: f.Made.UnixNano()}
}
