package clienttest

import (
	"context"

	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// settings keeps the cluster's settings as a coordinator does.
type settings struct {
	claryv1.UnimplementedSettingsServer
	c *Cluster
}

func (s *settings) Get(context.Context, *claryv1.GetSettingsRequest) (*claryv1.GetSettingsResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return wire.SettingsView(s.c.settings), nil
}

func (s *settings) Edit(_ context.Context, request *claryv1.EditSettingsRequest) (*claryv1.EditSettingsResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if expect, now := request.GetExpect(), s.c.settings.Revision; request.Expect != nil && expect != now {
		return nil, fault.New(fault.Conflict, "expect: the settings are at revision %d, not %d: read them again", now, expect)
	}
	after, err := wire.EditSettings(s.c.settings, request)
	if err != nil {
		return nil, err
	}
	changes := wire.SettingChanges(s.c.settings, after)
	if len(changes) > 0 && !request.GetDryRun() {
		after.Revision++
		s.c.settings = after
	}
	return &claryv1.EditSettingsResponse{Changes: changes, Revision: s.c.settings.Revision}, nil
}

// Sweep finds nothing but what the test has put there.
func (s *settings) Sweep(_ context.Context, request *claryv1.SweepRequest) (*claryv1.SweepResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	answer := s.c.over
	if answer == nil {
		answer = &claryv1.SweepResponse{}
	}
	if !request.GetDryRun() {
		s.c.over = &claryv1.SweepResponse{Kept: answer.GetKept()}
	}
	return answer, nil
}

// Over sets what is over, for the next sweep.
func (c *Cluster) Over(answer *claryv1.SweepResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = answer
}
