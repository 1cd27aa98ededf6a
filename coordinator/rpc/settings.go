package rpc

import (
	"context"

	"github.com/clary-ml/clary/coordinator/backup"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/janitor"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// settings serves the cluster's settings.
type settings struct {
	claryv1.UnimplementedSettingsServer
	replica Replica
	leader  leaderConns
	janitor Janitor
}

// Janitor removes what is over. It knows on the leader only.
type Janitor interface {
	Sweep(ctx context.Context, do bool) (janitor.Result, error)
}

// Sweep says what is over, or has it go.
func (s *settings) Sweep(ctx context.Context, request *claryv1.SweepRequest) (*claryv1.SweepResponse, error) {
	if conn, err := s.leader.elsewhere(); err != nil || conn != nil {
		if err != nil {
			return nil, err
		}
		answer, err := claryv1.NewSettingsClient(conn).Sweep(forwarded(ctx), request)
		return answer, wire.FromStatus(err)
	}
	if s.janitor == nil {
		return nil, fault.New(fault.Unready, "this coordinator removes nothing")
	}
	result, err := s.janitor.Sweep(ctx, !request.GetDryRun())
	if err != nil {
		return nil, err
	}
	told := func(list []janitor.Gone) []*claryv1.Gone {
		out := make([]*claryv1.Gone, len(list))
		for i, g := range list {
			out[i] = &claryv1.Gone{Kind: string(g.Kind), Id: g.ID, Why: g.Why, Objects: g.Objects, Bytes: g.Bytes}
		}
		return out
	}
	return &claryv1.SweepResponse{Gone: told(result.Gone), Kept: told(result.Kept), More: result.More}, nil
}

// Get shows every setting with its default and what it means.
func (s *settings) Get(ctx context.Context, request *claryv1.GetSettingsRequest) (*claryv1.GetSettingsResponse, error) {
	snapshot, err := s.replica.Read(ctx, request.GetStale())
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	return wire.SettingsView(snapshot.Settings()), nil
}

// Edit changes settings, all that the request names or none.
func (s *settings) Edit(ctx context.Context, request *claryv1.EditSettingsRequest) (*claryv1.EditSettingsResponse, error) {
	for try := 1; ; try++ {
		answer, err := s.edit(ctx, request)
		if !fault.Is(err, fault.Conflict) || request.Expect != nil || ctx.Err() != nil || try == changeTries {
			return answer, err
		}
	}
}

func (s *settings) edit(ctx context.Context, request *claryv1.EditSettingsRequest) (*claryv1.EditSettingsResponse, error) {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	before := snapshot.Settings()
	snapshot.Close()
	if request.Expect != nil && request.GetExpect() != before.Revision {
		return nil, fault.New(fault.Conflict, "expect: the settings are at revision %d, not %d: read them again", before.Revision, request.GetExpect())
	}
	after, err := wire.EditSettings(before, request)
	if err != nil {
		return nil, err
	}
	if list := after.Backup.RecipientList(); len(list) > 0 {
		if _, err := backup.Recipients(list); err != nil {
			return nil, fault.New(fault.Invalid, "settings.backup.%w", err)
		}
	}
	answer := &claryv1.EditSettingsResponse{Changes: wire.SettingChanges(before, after), Revision: before.Revision}
	if len(answer.GetChanges()) == 0 || request.GetDryRun() {
		actOf(ctx).idle.Store(true)
		return answer, nil
	}
	results, err := s.replica.Propose(ctx, command.Record{Changes: []command.Change{{Settings: &after, Expect: before.Revision}}})
	if err != nil {
		return nil, err
	}
	answer.Revision = results[0].Revision
	return answer, nil
}
