package rpc_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/request"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// audited returns what is on record, once what waits has been written.
func audited(w *world, ask *claryv1.AuditRequest) []cluster.Deed {
	w.Helper()
	time.Sleep(2 * time.Second) // of the bubble: entries of refusals are written every second
	answer, err := claryv1.NewHandsClient(w.as(cluster.RoleAdmin)).Audit(w.Context(), ask)
	if err != nil {
		w.Fatal(err)
	}
	var deeds []cluster.Deed
	for _, deed := range answer.GetDeeds() {
		deeds = append(deeds, wire.DeedFromProto(deed))
	}
	return deeds
}

func TestWhatChangesSomethingIsOnRecordInTheEntryOfTheChange(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx := metadata.AppendToOutgoingContext(w.Context(), request.Header, "req-1")
		job := cluster.Job{Name: "digits", Kind: cluster.KindTraining, Spec: []byte(`{"program": {"command": ["do-not-show"]}}`)}
		answer, err := claryv1.NewJobsClient(w.as(cluster.RoleUser)).Submit(ctx, &claryv1.SubmitRequest{Job: wire.JobToProto(job)})
		if err != nil {
			t.Fatal(err)
		}
		deeds := audited(w, &claryv1.AuditRequest{})
		if len(deeds) != 1 {
			t.Fatalf("%+v", deeds)
		}
		deed := deeds[0]
		if deed.User != "the-user" || deed.Action != "jobs/submit" || deed.Object != "digits" || deed.Request != "req-1" || deed.Outcome != cluster.OutcomeOK ||
			deed.From == "" || deed.Ended < deed.Time || deed.Job() != "digits" {
			t.Errorf("%+v", deed)
		}
		if deed.Revision != answer.GetJob().GetRevision() {
			t.Errorf("the job came with revision %d, its entry with %d", answer.GetJob().GetRevision(), deed.Revision)
		}
		if strings.Contains(deed.Detail+deed.Result+deed.Object, "do-not-show") {
			t.Errorf("the payload is on record: %+v", deed)
		}
	})
}

func TestWhatIsRefusedIsOnRecordAndALookIsNot(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx := w.Context()
		_, unknown, err := auth.NewUserToken("eve", cluster.RoleAdmin, 0, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		viewer, admin := claryv1.NewNodesClient(w.as(cluster.RoleViewer)), claryv1.NewNodesClient(w.as(cluster.RoleAdmin))
		_, _ = viewer.List(ctx, &claryv1.ListNodesRequest{})
		_, _ = viewer.Drain(ctx, &claryv1.DrainNodeRequest{Id: "n1"})
		_, _ = admin.Drain(ctx, &claryv1.DrainNodeRequest{Id: "n2"})
		_, _ = claryv1.NewJobsClient(w.as(unknown)).Cancel(ctx, &claryv1.CancelJobRequest{Name: "digits"})
		_, _ = claryv1.NewSettingsClient(w.as(cluster.RoleViewer)).Edit(ctx, &claryv1.EditSettingsRequest{Put: []*claryv1.Setting{{Path: "retention.audit", Value: "hush"}}})
		_, _ = claryv1.NewKeysClient(w.as(cluster.RoleViewer)).Rotate(ctx, &claryv1.RotateKeysRequest{What: "ca", Step: "drop"})
		bad := cluster.Job{Name: "Bad Name", Kind: cluster.KindTraining, Spec: []byte(`{"hush": 1}`)}
		_, _ = claryv1.NewJobsClient(w.as(cluster.RoleUser)).Submit(ctx, &claryv1.SubmitRequest{Job: wire.JobToProto(bad)})
		var lines []string
		for _, deed := range audited(w, &claryv1.AuditRequest{}) {
			lines = append(lines, strings.Join([]string{deed.User, deed.Action, deed.Object, deed.Outcome}, " "))
			if strings.Contains(deed.Result, "hush") {
				t.Errorf("a secret is on record: %+v", deed)
			}
		}
		for _, want := range []string{
			"the-viewer nodes/drain n1 denied", "the-admin nodes/drain n2 not found", "(unknown) jobs/cancel digits denied", "the-user jobs/submit Bad Name invalid",
			"the-viewer settings/edit retention.audit denied", "the-viewer keys/rotate ca denied",
		} {
			if !slices.Contains(lines, want) {
				t.Errorf("no %q in %q", want, lines)
			}
		}
		if len(lines) != 6 {
			t.Errorf("%d entries: %q", len(lines), lines)
		}
		if only := audited(w, &claryv1.AuditRequest{What: "nodes"}); len(only) != 2 {
			t.Errorf("of nodes: %+v", only)
		}
		all := audited(w, &claryv1.AuditRequest{})
		if later := audited(w, &claryv1.AuditRequest{After: all[1].ID, Limit: 1}); len(later) != 1 || later[0].ID != all[2].ID {
			t.Errorf("after the second came %+v", later)
		}
	})
}

func TestWhatChangesNothingIsNotOnRecordAndARotatedTokenIsByItsID(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx := w.Context()
		edits := claryv1.NewSettingsClient(w.as(cluster.RoleAdmin))
		edit := func(value string, dry bool) {
			w.Helper()
			request := &claryv1.EditSettingsRequest{Put: []*claryv1.Setting{{Path: "retention.audit", Value: value}}, DryRun: dry}
			if _, err := edits.Edit(ctx, request); err != nil {
				w.Fatal(err)
			}
		}
		edit("40d", true)
		edit("40d", false)
		edit("40d", false) // which they are already
		_, _ = claryv1.NewSettingsClient(w.as(cluster.RoleViewer)).Edit(ctx, &claryv1.EditSettingsRequest{Put: []*claryv1.Setting{{Path: "retention.audit", Value: "1d"}}, DryRun: true})
		rotated, err := claryv1.NewKeysClient(w.as(cluster.RoleUser)).RotateToken(ctx, &claryv1.RotateTokenRequest{Overlap: int64(time.Hour)}) // his own
		if err != nil {
			w.Fatal(err)
		}
		var lines []string
		for _, deed := range audited(w, &claryv1.AuditRequest{}) {
			lines = append(lines, strings.Join([]string{deed.User, deed.Action, deed.Object, deed.Outcome}, " "))
		}
		slices.Sort(lines)
		want := []string{"the-admin settings/edit retention.audit ok", "the-user keys/rotatetoken " + rotated.GetOld().GetId() + " ok", "the-viewer settings/edit retention.audit denied"}
		if !slices.Equal(lines, want) {
			t.Errorf("%q\nwant %q", lines, want)
		}
	})
}

func TestANodeSaysWhetherItWasCordonedOrDrained(t *testing.T) {
	inWorld(t, func(w *world) {
		w.propose(command.PutNode{Node: cluster.Node{ID: "n1", Address: "n1"}})
		nodes := claryv1.NewNodesClient(w.as(cluster.RoleAdmin))
		for _, empty := range []bool{false, true} {
			word := map[bool]string{false: "cordoned by ", true: "drained by "}[empty]
			if node, err := nodes.Drain(w.Context(), &claryv1.DrainNodeRequest{Id: "n1", Empty: empty}); err != nil || !strings.HasPrefix(node.GetReason(), word) {
				t.Errorf("%q is not %q: %v", node.GetReason(), word, err)
			}
		}
	})
}

// A change may be made, and its entry with it, without anybody hearing of it. What waits beside that entry to be put on record is.
func TestAnEntryThatIsThereAlreadyTakesNoOtherWithIt(t *testing.T) {
	inWorld(t, func(w *world) {
		w.propose(command.PutNode{Node: cluster.Node{ID: "n1", Address: "n1"}})
		w.unheard.Store(true)
		_, err := claryv1.NewNodesClient(w.as(cluster.RoleAdmin)).Drain(w.Context(), &claryv1.DrainNodeRequest{Id: "n1"})
		if err = wire.FromStatus(err); !fault.Is(err, fault.Unready) {
			t.Fatal(err)
		}
		w.unheard.Store(false)
		_, _ = claryv1.NewNodesClient(w.as(cluster.RoleViewer)).Drain(w.Context(), &claryv1.DrainNodeRequest{Id: "n2"})
		var lines []string
		for _, deed := range audited(w, &claryv1.AuditRequest{}) {
			lines = append(lines, strings.Join([]string{deed.User, deed.Action, deed.Object, deed.Outcome}, " "))
		}
		slices.Sort(lines) // they are of one instant
		if want := []string{"the-admin nodes/drain n1 ok", "the-viewer nodes/drain n2 denied"}; !slices.Equal(lines, want) {
			t.Errorf("%q, want %q", lines, want)
		}
	})
}

// What is asked for while coordinators of two versions run is put on record when all know how.
func TestWhatWasChangedUnderAnEarlierFormatIsOnRecordOnceItIsRaised(t *testing.T) {
	inWorldAt(t, 0, func(w *world) {
		jobs := claryv1.NewJobsClient(w.as(cluster.RoleUser))
		submit := func(name string) {
			job := cluster.Job{Name: name, Kind: cluster.KindTraining, Spec: []byte(`{"program": {"command": ["true"]}}`)}
			if _, err := jobs.Submit(w.Context(), &claryv1.SubmitRequest{Job: wire.JobToProto(job)}); err != nil {
				t.Fatal(err)
			}
		}
		submit("before")
		_, _ = claryv1.NewNodesClient(w.as(cluster.RoleViewer)).Drain(w.Context(), &claryv1.DrainNodeRequest{Id: "n1"})
		if deeds := audited(w, &claryv1.AuditRequest{}); len(deeds) != 0 {
			t.Errorf("an earlier build could not read %+v", deeds)
		}
		w.propose(command.RaiseFormat{To: command.Format})
		submit("after")
		var lines []string
		for _, deed := range audited(w, &claryv1.AuditRequest{}) {
			lines = append(lines, strings.Join([]string{deed.User, deed.Action, deed.Object, deed.Outcome}, " "))
			if deed.From == "" || deed.Request == "" || deed.Ended < deed.Time {
				t.Errorf("%+v", deed)
			}
		}
		slices.Sort(lines)
		if want := []string{"the-user jobs/submit after ok", "the-user jobs/submit before ok", "the-viewer nodes/drain n1 denied"}; !slices.Equal(lines, want) {
			t.Errorf("%q, want %q", lines, want)
		}
	})
}

// A machine that joins has no name of its own yet: on record is whose token it showed, once that is sure.
func TestAJoinIsOnRecordWithWhoMadeItsToken(t *testing.T) {
	inWorld(t, func(w *world) {
		answer, err := claryv1.NewAdminClient(w.as(cluster.RoleAdmin)).CreateToken(w.Context(), &claryv1.CreateTokenRequest{Kind: string(cluster.TokenJoin), Role: pki.Agent})
		if err != nil || answer.GetToken().GetBy() != "the-admin" {
			t.Fatal(answer.GetToken(), err)
		}
		secret := answer.GetSecret()
		if err := w.joining(secret, pki.Agent, "n7", csr(t)); err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(secret, "_")
		parts[3] = strings.Repeat("0", len(parts[3]))
		if err := w.joining(strings.Join(parts, "_"), pki.Agent, "n8", csr(t)); err == nil {
			t.Fatal("a wrong secret was taken")
		}
		var lines []string
		for _, deed := range audited(w, &claryv1.AuditRequest{What: "admin/join"}) {
			lines = append(lines, strings.Join([]string{deed.User, deed.Object, deed.Outcome, deed.Detail}, " "))
		}
		slices.Sort(lines)
		if want := []string{"(unknown) n8 denied ", "the-admin n7 ok with the join token " + answer.GetToken().GetId()}; !slices.Equal(lines, want) {
			t.Errorf("%q, want %q", lines, want)
		}
	})
}

func TestAFloodOfRefusalsIsCountedAndNotKept(t *testing.T) {
	inWorld(t, func(w *world) {
		jobs := claryv1.NewJobsClient(w.as(cluster.RoleViewer))
		for range 1000 {
			_, _ = jobs.Cancel(w.Context(), &claryv1.CancelJobRequest{Name: "digits"})
		}
		deeds := audited(w, &claryv1.AuditRequest{})
		left := slices.IndexFunc(deeds, func(d cluster.Deed) bool { return d.Action == "audit/left-out" })
		if len(deeds) > 300 || left < 0 || !strings.Contains(deeds[left].Detail, "more requests") {
			t.Errorf("%d entries", len(deeds))
		}
	})
}

func TestAnInternalErrorSaysWhereToLook(t *testing.T) {
	inWorld(t, func(w *world) {
		w.defect = true
		ctx := metadata.AppendToOutgoingContext(context.Background(), request.Header, "find-me")
		_, err := claryv1.NewObjectsClient(w.as(cluster.RoleUser)).Credentials(ctx, &claryv1.CredentialsRequest{})
		if err = wire.FromStatus(err); !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "request find-me: look for it in the log of coordinator c1") {
			t.Error(err)
		}
	})
}
