package client

import (
	"context"

	"google.golang.org/grpc"

	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// Setting is one thing that can be set of how the cluster behaves, as the cluster's version knows it.
type Setting struct {
	Path    string `json:"path"`    // like "retention.audit"
	Value   string `json:"value"`   // as people write it: 90d, 64MiB, 1000
	Default string `json:"default"` // likewise
	Unit    string `json:"unit"`    // count, bytes, duration, percent or text
	Means   string `json:"means"`
	Range   string `json:"range,omitempty"`
}

// Settings are all that can be set, and the revision that they are at. Stale asks any coordinator for what it knows,
// which may be a moment old.
func (c *Client) Settings(ctx context.Context, stale bool) ([]Setting, uint64, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.GetSettingsResponse, error) {
		return claryv1.NewSettingsClient(conn).Get(ctx, &claryv1.GetSettingsRequest{Stale: stale})
	})
	return each(response.GetSettings(), func(s *claryv1.SettingView) Setting {
		return Setting{Path: s.GetPath(), Value: s.GetValue(), Default: s.GetDefault(), Unit: s.GetUnit(), Means: s.GetMeans(), Range: s.GetRange()}
	}), response.GetRevision(), err
}

// SettingsEdit is a change of settings: all of it is made, or nothing.
type SettingsEdit struct {
	Put     map[string]string // by path; an empty value is the default
	Replace bool              // all that are not put get their defaults
	Expect  *uint64           // the revision that was read, 0 where nobody had set anything; nil: any
	DryRun  bool              // only say what would change
}

// SettingChange is what an edit does to one setting.
type SettingChange struct {
	Path   string `json:"path"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// EditSettings changes settings and tells what has changed. An edit may be sent twice, if the first answer was lost: then the
// second finds nothing left to do, or with Expect a Conflict.
func (c *Client) EditSettings(ctx context.Context, edit SettingsEdit) ([]SettingChange, error) {
	request := &claryv1.EditSettingsRequest{Replace: edit.Replace, Expect: edit.Expect, DryRun: edit.DryRun}
	for path, value := range edit.Put {
		request.Put = append(request.Put, &claryv1.Setting{Path: path, Value: value})
	}
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.EditSettingsResponse, error) {
		return claryv1.NewSettingsClient(conn).Edit(ctx, request)
	})
	return each(response.GetChanges(), func(change *claryv1.SettingChange) SettingChange {
		return SettingChange{change.GetPath(), change.GetBefore(), change.GetAfter()}
	}), err
}

// Gone is something whose time is over, and why.
type Gone struct {
	Kind    string `json:"kind"` // job, archived, record, token, objects, upload, parts or checkpoints
	ID      string `json:"id"`
	Why     string `json:"why"`
	Objects int64  `json:"objects,omitempty"` // that it has in the object store, or had
	Bytes   int64  `json:"bytes,omitempty"`
}

// Sweep is what is over.
type Sweep struct {
	Gone []Gone `json:"gone"`
	Kept []Gone `json:"kept,omitempty"` // their time is over, too, but something needs them
	More bool   `json:"more,omitempty"` // there is more than a round takes
}

// SweepUp has what is over go at once, a round's worth, or only says what that is.
func (c *Client) SweepUp(ctx context.Context, dryRun bool) (Sweep, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.SweepResponse, error) {
		return claryv1.NewSettingsClient(conn).Sweep(ctx, &claryv1.SweepRequest{DryRun: dryRun})
	})
	told := func(g *claryv1.Gone) Gone {
		return Gone{g.GetKind(), g.GetId(), g.GetWhy(), g.GetObjects(), g.GetBytes()}
	}
	return Sweep{each(response.GetGone(), told), each(response.GetKept(), told), response.GetMore()}, err
}
