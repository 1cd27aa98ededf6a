package rpc_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

const artifact = "s3://clary/jobs/digits/1/model.tar.gz"

// sumOf is the SHA-256 of "weights".
const sumOf = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"

// made has a job publish a model.
func (w *world) made(name string) {
	w.Helper()
	w.propose(command.PutNode{Node: cluster.Node{ID: "n1", Address: "10.0.0.9", State: cluster.NodeReady, MilliCPU: 4000, Memory: 8 << 30, PortFirst: 1000, PortLast: 2000}})
	w.artifacts.Write("s3://data/train.csv", "1,2", time.Now())
	if _, err := w.submit(cluster.RoleUser, func(j *cluster.Job) {
		j.Name, j.Spec = name, []byte(`{"program": {"command": ["train", "--fast"]}, "hyperparameters": {"epochs": 20}, "inputs": {"train": "s3://data/train.csv"}}`)
	}); err != nil {
		w.Fatal(err)
	}
	synctest.Wait()
	w.artifacts.Write("s3://clary/jobs/"+name+"/1/model.tar.gz", "weights", time.Now())
	output := cluster.Output{Name: "model", URI: "s3://clary/jobs/" + name + "/1/model.tar.gz", SHA256: sumOf, Size: 7}
	w.propose(command.ReportTasks{Node: "n1", Reports: []command.TaskReport{{Task: name + "/main/worker-0.1", Status: cluster.TaskStatus{
		State: cluster.TaskSucceeded, Outputs: []cluster.Output{output}, Progress: cluster.Progress{Metrics: map[string]float64{"accuracy": 0.97}},
	}}}})
	synctest.Wait()
}

func (w *world) models(who string) claryv1.ModelsClient { return claryv1.NewModelsClient(w.as(who)) }

func (w *world) register(who string, request *claryv1.RegisterModelRequest) (cluster.ModelVersion, bool, error) {
	stream, err := w.models(who).Register(w.Context(), request)
	if err != nil {
		return cluster.ModelVersion{}, false, wire.FromStatus(err)
	}
	var last *claryv1.RegisterModelResponse
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return wire.ModelVersionFromProto(last.GetVersion()), last.GetExisted(), nil
		}
		if err != nil {
			return cluster.ModelVersion{}, false, wire.FromStatus(err)
		}
		last = answer
	}
}

func TestConcurrentRegistrationsOfOneJobAreOneVersion(t *testing.T) {
	inWorld(t, func(w *world) {
		w.made("digits")
		const callers = 8
		var calls sync.WaitGroup
		versions, fresh := make([]cluster.ModelVersion, callers), make([]bool, callers)
		for i := range callers {
			who := []string{cluster.RoleUser, cluster.RoleAdmin}[i%2]
			calls.Go(func() {
				version, existed, err := w.register(who, &claryv1.RegisterModelRequest{Model: "net", Job: "digits"})
				if err != nil {
					w.Error(err)
				}
				versions[i], fresh[i] = version, !existed
			})
		}
		calls.Wait()
		made := 0
		for i := range callers {
			if versions[i].Number != 1 || versions[i].Artifact != versions[0].Artifact {
				w.Errorf("%s with %s, want one version", versions[i].Ref(), versions[i].Artifact.URI)
			}
			if fresh[i] {
				made++
			}
		}
		if kept := w.artifacts.Below("s3://clary/models/"); made != 1 || len(kept) != 1 || kept[0] != versions[0].Artifact.URI {
			w.Errorf("%d were told that it is new; the store has %v", made, kept)
		}
		l := versions[0].Lineage
		if l.Job != "digits" || l.Parameters["epochs"] != "20" || l.Metrics["accuracy"] != 0.97 || l.Code.What != "train --fast" ||
			len(l.Data) != 1 || l.Data[0].URI != "s3://data/train.csv" || l.Data[0].Changed || !strings.HasPrefix(l.Data[0].Digest, "sha256:") {
			w.Errorf("its lineage is %+v", l)
		}
		second, _, err := w.register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "other", Job: "digits"})
		if err != nil || second.Ref() != "other@1" {
			w.Errorf("under another name it is %s, %v", second.Ref(), err)
		}
	})
}

func TestARefusedRequestChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.made("digits")
		if _, _, err := w.register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Job: "digits"}); err != nil {
			w.Fatal(err)
		}
		w.artifacts.Write("s3://lab/m.onnx", "onnx", time.Now())
		other := w.user("eve", cluster.RoleUser)
		before, objects := w.revision(), fmt.Sprint(w.artifacts.Below(""))
		register := func(who string, r *claryv1.RegisterModelRequest) func() error {
			return func() error { _, _, err := w.register(who, r); return err }
		}
		alias := func(who, name string, number int64) func() error {
			return func() error {
				_, err := w.models(who).Alias(w.Context(), &claryv1.AliasModelRequest{Model: "net", Alias: name, Number: number})
				return err
			}
		}
		approve := func(who, ref, state string) func() error {
			return func() error {
				_, err := w.models(who).Approve(w.Context(), &claryv1.ApproveModelRequest{Ref: ref, State: state})
				return err
			}
		}
		evaluate := func(who, ref string, e *claryv1.Evaluation) func() error {
			return func() error {
				_, err := w.models(who).Evaluate(w.Context(), &claryv1.EvaluateModelRequest{Ref: ref, Evaluation: e})
				return err
			}
		}
		remove := func(who, ref string) func() error {
			return func() error {
				_, err := w.models(who).Delete(w.Context(), &claryv1.DeleteModelRequest{Ref: ref})
				return err
			}
		}
		figures := map[string]float64{"auc": 0.9}
		for name, c := range map[string]struct {
			do   func() error
			kind fault.Kind
			want string
		}{
			"no name":                {register(cluster.RoleUser, &claryv1.RegisterModelRequest{Job: "digits"}), fault.Invalid, "model"},
			"a bad name":             {register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "../x", Job: "digits"}), fault.Invalid, "is not a name"},
			"nothing to register":    {register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net"}), fault.Invalid, "name the job"},
			"both":                   {register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Job: "digits", Uri: "s3://a/b"}), fault.Invalid, "remove one"},
			"no such job":            {register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Job: "none"}), fault.NotFound, "clary jobs"},
			"no such output":         {register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Job: "digits", Output: "plan"}), fault.NotFound, `published no "plan"`},
			"a viewer registers":     {register(cluster.RoleViewer, &claryv1.RegisterModelRequest{Model: "net", Job: "digits"}), fault.Denied, "viewer"},
			"no such object":         {register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Uri: "s3://lab/none"}), fault.NotFound, "s3://lab/none"},
			"a folder":               {register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Uri: "s3://lab/"}), fault.Invalid, "pack a folder"},
			"another digest":         {register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Uri: "s3://lab/m.onnx", Sha256: sumOf}), fault.Invalid, "is not the file that was meant"},
			"a bad format":           {register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Uri: "s3://lab/m.onnx", Format: "A b"}), fault.Invalid, "format"},
			"no such parent":         {register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Uri: "s3://lab/m.onnx", Parent: "net@7"}), fault.NotFound, "parent"},
			"a figure that is none":  {register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Uri: "s3://lab/m.onnx", Metrics: map[string]float64{"": 1}}), fault.Invalid, "metrics"},
			"a version's own object": {register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Uri: w.version("net@1").Artifact.URI}), fault.Conflict, "belongs to version net@1"},
			"an alias of nothing":    {alias(cluster.RoleUser, "champion", 2), fault.NotFound, "no version 2"},
			"a bad alias":            {alias(cluster.RoleUser, "a b", 1), fault.Invalid, "is not a name"},
			"an alias to remove":     {alias(cluster.RoleUser, "champion", 0), fault.NotFound, "no alias"},
			"another's alias":        {alias(other, "champion", 1), fault.Denied, "belongs to the-user"},
			"another's approval":     {approve(other, "net@1", "approved"), fault.Denied, "belongs to the-user"},
			"a strange state":        {approve(cluster.RoleUser, "net@1", "pending"), fault.Invalid, "approved or rejected"},
			"no version approved":    {approve(cluster.RoleUser, "net", "approved"), fault.Invalid, "names no version"},
			"no figures":             {evaluate(cluster.RoleUser, "net@1", &claryv1.Evaluation{Name: "held-out"}), fault.Invalid, "at least one figure"},
			"against itself":         {evaluate(cluster.RoleUser, "net@1", &claryv1.Evaluation{Name: "held-out", Metrics: figures, Against: "net@1"}), fault.Invalid, "the version itself"},
			"against nothing":        {evaluate(cluster.RoleUser, "net@1", &claryv1.Evaluation{Name: "held-out", Metrics: figures, Against: "net@3"}), fault.NotFound, "against"},
			"a page elsewhere":       {evaluate(cluster.RoleUser, "net@1", &claryv1.Evaluation{Name: "held-out", Metrics: figures, Report: "s3://lab/page.html"}), fault.Invalid, "own folder"},
			"a model with versions":  {remove(cluster.RoleUser, "net"), fault.Conflict, "has 1 versions"},
			"another's deletion":     {remove(other, "net@1"), fault.Denied, "belongs to the-user"},
			"no such version":        {remove(cluster.RoleUser, "net@2"), fault.NotFound, "no version 2"},
			"no such model":          {remove(cluster.RoleUser, "none@2"), fault.NotFound, "no model"},
		} {
			err := wire.FromStatus(c.do())
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				w.Errorf("%s: %v; want %s with %q", name, err, c.kind, c.want)
			}
			if now := w.revision(); now != before {
				w.Fatalf("%s: the state went from revision %d to %d", name, before, now)
			}
			if now := fmt.Sprint(w.artifacts.Below("")); now != objects {
				w.Fatalf("%s: the store had %s, and has %s", name, objects, now)
			}
		}
	})
}

func (w *world) version(ref string) cluster.ModelVersion {
	w.Helper()
	view, err := w.models(cluster.RoleViewer).Version(w.Context(), &claryv1.GetModelVersionRequest{Ref: ref})
	if err != nil {
		w.Fatal(err)
	}
	return wire.ModelVersionFromProto(view.GetVersion())
}

func TestAVersionIsDeletedWhenNothingUsesIt(t *testing.T) {
	inWorld(t, func(w *world) {
		w.made("digits")
		w.artifacts.Write("s3://lab/m.onnx", "onnx", time.Now())
		must := func(_ any, err error) {
			w.Helper()
			if err != nil {
				w.Fatal(err)
			}
		}
		for _, r := range []*claryv1.RegisterModelRequest{{Model: "net", Job: "digits"}, {Model: "net", Uri: "s3://lab/m.onnx"}, {Model: "net", Uri: "s3://lab/m.onnx"}} {
			_, _, err := w.register(cluster.RoleUser, r)
			must(nil, err)
		}
		models := w.models(cluster.RoleUser)
		must(models.Alias(w.Context(), &claryv1.AliasModelRequest{Model: "net", Alias: "champion", Number: 1}))
		must(models.Evaluate(w.Context(), &claryv1.EvaluateModelRequest{Ref: "net@2", Evaluation: &claryv1.Evaluation{Name: "held-out", Metrics: map[string]float64{"auc": 1}, Against: "net:champion"}}))
		// It reads the champion of today, and goes on doing so.
		if _, err := w.submit(cluster.RoleUser, func(j *cluster.Job) {
			j.Name, j.Held, j.Spec = "reader", true, []byte(`{"program": {"command": ["true"]}, "inputs": {"model": "model://net:champion"}}`)
		}); err != nil {
			w.Fatal(err)
		}
		w.refusesDeletion("net@1", "alias champion, evaluation net@2/held-out, job reader")
		must(models.Alias(w.Context(), &claryv1.AliasModelRequest{Model: "net", Alias: "champion", Number: 2}))
		w.refusesDeletion("net@1", "used by evaluation net@2/held-out, job reader")
		input := w.input("reader")
		if first := w.version("net@1"); input.URI != first.Artifact.URI || input.SHA256 != first.Artifact.SHA256 {
			w.Errorf("the alias has moved, and the job reads %+v, not %+v", input, first.Artifact)
		}
		must(models.Evaluate(w.Context(), &claryv1.EvaluateModelRequest{Ref: "net@2", Evaluation: &claryv1.Evaluation{Name: "held-out"}, Remove: true}))
		w.refusesDeletion("net@1", "used by job reader")
		must(claryv1.NewJobsClient(w.as(cluster.RoleUser)).Cancel(w.Context(), &claryv1.CancelJobRequest{Name: "reader"}))
		synctest.Wait()

		// What is cut off in the middle can be done again, and nobody uses it meanwhile.
		folder := w.version("net@1").Folder()
		w.artifacts.Break(fault.New(fault.Unready, "the store is away"))
		if _, err := models.Delete(w.Context(), &claryv1.DeleteModelRequest{Ref: "net@1"}); err == nil || !strings.Contains(err.Error(), "store is away") {
			w.Errorf("without a store: %v", err)
		}
		if _, err := models.Version(w.Context(), &claryv1.GetModelVersionRequest{Ref: "net@1"}); err == nil || !strings.Contains(err.Error(), "is being deleted") {
			w.Errorf("half deleted it can be read: %v", err)
		}
		if _, err := models.Alias(w.Context(), &claryv1.AliasModelRequest{Model: "net", Alias: "old", Number: 1}); err == nil {
			w.Error("half deleted it got an alias")
		}
		w.artifacts.Break(nil)
		must(models.Delete(w.Context(), &claryv1.DeleteModelRequest{Ref: "net@1"}))
		if left := w.artifacts.Below(folder); len(left) > 0 {
			w.Errorf("it left %v", left)
		}
		if len(w.artifacts.Below(artifact)) != 1 {
			w.Error("what the job published is gone with it")
		}

		// So can what was done, whose answer may have been lost.
		must(models.Delete(w.Context(), &claryv1.DeleteModelRequest{Ref: "net@1"}))
		if _, err := models.Delete(w.Context(), &claryv1.DeleteModelRequest{Ref: "net@9"}); !fault.Is(wire.FromStatus(err), fault.NotFound) {
			w.Errorf("a version that never was: %v", err)
		}

		// Its number is not given again.
		must(models.Delete(w.Context(), &claryv1.DeleteModelRequest{Ref: "net@3"}))
		again, existed, err := w.register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Job: "digits"})
		if err != nil || existed || again.Number != 4 {
			w.Errorf("registered again it is %s, %v, %v", again.Ref(), existed, err)
		}
	})
}

func TestAComparisonOfAnothersIsTakenAwayByTheOwnerOfWhatItComparesWith(t *testing.T) {
	inWorld(t, func(w *world) {
		w.artifacts.Write("s3://lab/m.onnx", "onnx", time.Now())
		eve, bob := w.user("eve", cluster.RoleUser), w.user("bob", cluster.RoleUser)
		for who, name := range map[string]string{cluster.RoleUser: "net", eve: "rival"} {
			if _, _, err := w.register(who, &claryv1.RegisterModelRequest{Model: name, Uri: "s3://lab/m.onnx"}); err != nil {
				w.Fatal(err)
			}
		}
		judge := func(who, name, against string, remove bool) error {
			e := &claryv1.Evaluation{Name: name, Against: against}
			if !remove {
				e.Metrics = map[string]float64{"auc": 1}
			}
			_, err := w.models(who).Evaluate(w.Context(), &claryv1.EvaluateModelRequest{Ref: "rival@1", Evaluation: e, Remove: remove})
			return wire.FromStatus(err)
		}
		for name, against := range map[string]string{"beside-net": "net@1", "alone": ""} {
			if err := judge(eve, name, against, false); err != nil {
				w.Fatal(err)
			}
		}
		w.refusesDeletion("net@1", "evaluation rival@1/beside-net")
		for name, c := range map[string]struct {
			who, evaluation string
			remove          bool
		}{
			"a third one's removal": {bob, "beside-net", true},
			"the owner's own words": {cluster.RoleUser, "beside-net", false},
			"one of no comparison":  {cluster.RoleUser, "alone", true},
		} {
			if err := judge(c.who, c.evaluation, "", c.remove); !fault.Is(err, fault.Denied) {
				w.Errorf("%s: %v", name, err)
			}
		}
		if err := judge(cluster.RoleUser, "beside-net", "", true); err != nil {
			w.Fatal(err)
		}
		if _, err := w.models(cluster.RoleUser).Delete(w.Context(), &claryv1.DeleteModelRequest{Ref: "net@1"}); err != nil {
			w.Error(err)
		}
	})
}

func TestAPageOfVersionsIsOfTheNewestAndOfBoundedBytes(t *testing.T) {
	inWorld(t, func(w *world) {
		const versions = 30
		w.artifacts.Write("s3://lab/m.onnx", "onnx", time.Now())
		large := map[string]string{}
		for i := range 100 {
			large[fmt.Sprint("p", i)] = strings.Repeat("x", 1000)
		}
		for range versions {
			if _, _, err := w.register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Uri: "s3://lab/m.onnx", Parameters: large}); err != nil {
				w.Fatal(err)
			}
		}
		models := w.models(cluster.RoleUser)
		for _, number := range []int64{3, 4, 28} {
			if _, err := models.Delete(w.Context(), &claryv1.DeleteModelRequest{Ref: fmt.Sprint("net@", number)}); err != nil {
				w.Fatal(err)
			}
		}
		for _, limit := range []int32{0, 7, 1000} {
			var got []int64
			for before := int64(0); ; {
				page, err := models.Versions(w.Context(), &claryv1.ListModelVersionsRequest{Model: "net", Limit: limit, Before: before})
				if err != nil {
					w.Fatal(err)
				}
				if size := proto.Size(page); size > 5<<19 || limit > 0 && len(page.GetVersions()) > int(limit) {
					w.Errorf("limit %d: a page of %d versions has %d bytes", limit, len(page.GetVersions()), size)
				}
				for _, version := range page.GetVersions() {
					got = append(got, version.GetNumber())
				}
				if before = page.GetNext(); before == 0 {
					break
				}
			}
			if len(got) != versions-3 || got[0] != 30 || got[2] != 27 || got[len(got)-1] != 1 || !slices.IsSortedFunc(got, func(a, b int64) int { return int(b - a) }) {
				w.Errorf("limit %d: %v", limit, got)
			}
		}
	})
}

func (w *world) refusesDeletion(ref, want string) {
	w.Helper()
	_, err := w.models(cluster.RoleUser).Delete(w.Context(), &claryv1.DeleteModelRequest{Ref: ref})
	if err = wire.FromStatus(err); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), want) {
		w.Errorf("deleting %s: %v; want a conflict with %q", ref, err, want)
	}
}

// input is the first one of a job's task.
func (w *world) input(job string) cluster.Input {
	w.Helper()
	view, err := claryv1.NewJobsClient(w.as(cluster.RoleViewer)).Get(w.Context(), &claryv1.GetJobRequest{Name: job})
	if err != nil {
		w.Fatal(err)
	}
	return wire.GangFromProto(view.GetGangs()[0]).Roles[0].Program.Inputs[0]
}

func TestAReferenceThatMeansNothingRefusesTheJob(t *testing.T) {
	inWorld(t, func(w *world) {
		for ref, want := range map[string]string{
			"model://none@1":       `no model "none"`,
			"model://none":         "names no version",
			"model://none@0":       "not the number",
			"model://none:a/b":     "is not a name",
			"model://":             "is not a name",
			"model://none:latest":  `no model "none"`,
			"model://none@1@2":     "not the number",
			"model://None@1":       "is not a name",
			"model://none@99e9999": "not the number",
		} {
			_, err := w.submit(cluster.RoleUser, func(j *cluster.Job) {
				j.Spec = fmt.Appendf(nil, `{"program": {"command": ["true"]}, "inputs": {"model": %q}}`, ref)
			})
			if err == nil || !strings.Contains(err.Error(), want) {
				w.Errorf("%s: %v; want %q", ref, err, want)
			}
		}
		_, err := w.submit(cluster.RoleUser, func(j *cluster.Job) {
			j.Spec = []byte(`{"program": {"command": ["true"]}, "inputs": {"model": {"uri": "model://net@1", "mode": "pipe"}}}`)
		})
		if err == nil || !strings.Contains(err.Error(), "a model comes as the one file that it is") {
			w.Errorf("as a pipe: %v", err)
		}
		_, err = w.submit(cluster.RoleUser, func(j *cluster.Job) { j.Register = "No Name" })
		if err == nil || !strings.Contains(err.Error(), `register: "No Name" is not a name`) {
			w.Errorf("registered under no name: %v", err)
		}
		_, err = w.submit(cluster.RoleUser, func(j *cluster.Job) {
			j.Kind, j.Register = cluster.KindTuning, "net"
			j.Spec = []byte(`{"space": {"parameters": [{"name": "x", "type": "float", "low": 0, "high": 1}]}, "objectives": [{"name": "loss"}], "budget": {"trials": 1}}`)
		})
		if err == nil || !strings.Contains(err.Error(), "clary train --best-of digits --register net") {
			w.Errorf("a sweep: %v", err)
		}
	})
}

func TestASweepsTrialsReadWhatTheSweepWasSubmittedWith(t *testing.T) {
	inWorld(t, func(w *world) {
		w.artifacts.Write("s3://lab/m.onnx", "onnx", time.Now())
		for range 2 {
			if _, _, err := w.register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Uri: "s3://lab/m.onnx"}); err != nil {
				w.Fatal(err)
			}
		}
		models := w.models(cluster.RoleUser)
		alias := func(number int64) {
			w.Helper()
			if _, err := models.Alias(w.Context(), &claryv1.AliasModelRequest{Model: "net", Alias: "base", Number: number}); err != nil {
				w.Fatal(err)
			}
		}
		alias(1)
		answer, err := w.submit(cluster.RoleUser, func(j *cluster.Job) {
			j.Name, j.Kind = "sweep", cluster.KindTuning
			j.Spec = []byte(`{"space": {"parameters": [{"name": "x", "type": "float", "low": 0, "high": 1}]}, "objectives": [{"name": "loss"}],
				"budget": {"trials": 2}, "parallel": 1, "trial": {"program": {"command": ["true"]}, "inputs": {"model": "model://net:base"}}}`)
		})
		if err != nil {
			w.Fatal(err)
		}
		if pins := wire.JobFromProto(answer.GetJob()).Models; len(pins) != 1 || pins[0].Number != 1 {
			w.Fatalf("the sweep pins %+v", pins)
		}
		alias(2)
		time.Sleep(time.Second)
		first := w.version("net@1").Artifact
		if input := w.input("sweep-t0"); input.URI != first.URI || input.SHA256 != first.SHA256 {
			w.Errorf("a trial reads %+v, want %+v", input, first)
		}
		w.refusesDeletion("net@1", "job sweep")
	})
}
