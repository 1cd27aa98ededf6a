package rpc

import (
	"context"
	"encoding/json"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/routes"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/serving/route"
)

// Reports takes what routers did, on its way to the leader or there.
type Reports func(ctx context.Context, reports []route.Report) error

const (
	updateBytes  = 1 << 20          // of endpoints in one message
	catchUpTime  = 10 * time.Second // for this coordinator to know what a router knows already
	mostReported = 64               // routers in one call
)

// routing serves agents that route.
type routing struct {
	claryv1.UnimplementedRoutesServer
	feed    *routes.Feed
	reports Reports
}

// Follow tells a router its table.
func (s *routing) Follow(request *claryv1.FollowRoutesRequest, stream grpc.ServerStreamingServer[claryv1.RoutesUpdate]) error {
	ctx := stream.Context()
	limited, cancel := context.WithTimeout(ctx, catchUpTime)
	err := s.feed.CatchUp(limited, request.GetVersion())
	cancel()
	if err != nil {
		return fault.New(fault.Unready, "this coordinator does not know what the router knows already: ask another")
	}
	var cursor routes.Cursor
	for {
		update, changed := s.feed.Next(&cursor)
		if err := send(stream, update); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.feed.Ended():
			return fault.New(fault.Unready, "this coordinator is stopping: ask another")
		case <-changed:
		}
	}
}

// send tells an update, in as many messages as it takes.
func send(stream grpc.ServerStreamingServer[claryv1.RoutesUpdate], u routes.Update) error {
	message := &claryv1.RoutesUpdate{Whole: u.Whole, Version: u.Version, Gone: u.Gone, Tokens: u.Tokens}
	size := len(u.Tokens)
	for _, endpoint := range u.Endpoints {
		if size += len(endpoint); size > updateBytes && len(message.Endpoints) > 0 {
			message.More = true
			if err := stream.Send(message); err != nil {
				return err
			}
			message, size = &claryv1.RoutesUpdate{Version: u.Version}, len(endpoint)
		}
		message.Endpoints = append(message.Endpoints, endpoint)
	}
	return stream.Send(message)
}

// Report takes what an agent's router did.
func (s *routing) Report(ctx context.Context, request *claryv1.RouterReports) (*claryv1.RouterReportsResponse, error) {
	reports, err := parseReports(request)
	if err != nil {
		return nil, err
	}
	for _, report := range reports {
		if name := RouterName(pki.Agent, caller(ctx).Name); report.Router != name {
			return nil, fault.New(fault.Denied, "router: %q, but the certificate is that of %s", cluster.Clip(report.Router), name)
		}
	}
	return &claryv1.RouterReportsResponse{}, s.reports(ctx, reports)
}

// RouterName is what the router of a node calls itself.
func RouterName(role, node string) string { return role + "/" + node }

func parseReports(request *claryv1.RouterReports) ([]route.Report, error) {
	if len(request.GetReports()) > mostReported {
		return nil, fault.New(fault.Invalid, "reports: %d: at most %d", len(request.GetReports()), mostReported)
	}
	reports := make([]route.Report, len(request.GetReports()))
	for i, text := range request.GetReports() {
		if err := json.Unmarshal(text, &reports[i]); err != nil {
			return nil, fault.New(fault.Invalid, "reports[%d]: %w", i, err)
		}
	}
	return reports, nil
}

// ReportsToProto are reports on their way.
func ReportsToProto(reports []route.Report) (*claryv1.RouterReports, error) {
	message := &claryv1.RouterReports{}
	for _, report := range reports {
		text, err := json.Marshal(report)
		if err != nil {
			return nil, err
		}
		message.Reports = append(message.Reports, text)
	}
	return message, nil
}

// Reports takes what other coordinators heard of routers: this one leads, or says that it does not.
func (s *peers) Reports(ctx context.Context, request *claryv1.RouterReports) (*claryv1.RouterReportsResponse, error) {
	reports, err := parseReports(request)
	if err != nil {
		return nil, err
	}
	return &claryv1.RouterReportsResponse{}, s.reports(ctx, reports)
}
