package ingress

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/serving/route"
)

// FollowRemote is Source.Follow by a coordinator's stream.
func FollowRemote(ctx context.Context, client claryv1.RoutesClient, version uint64, set func(route.Table) error) error {
	stream, err := client.Follow(ctx, &claryv1.FollowRoutesRequest{Version: version})
	if err != nil {
		return wire.FromStatus(err)
	}
	have := map[string]route.Endpoint{}
	var tokens []route.Token
	for {
		update, err := stream.Recv()
		if err != nil {
			return wire.FromStatus(err)
		}
		if update.GetWhole() {
			clear(have)
		}
		for _, name := range update.GetGone() {
			delete(have, name)
		}
		for _, text := range update.GetEndpoints() {
			var endpoint route.Endpoint
			if err := json.Unmarshal(text, &endpoint); err != nil {
				return fault.New(fault.Internal, "a coordinator's routes cannot be read: %w", err)
			}
			have[endpoint.Name] = endpoint
		}
		if text := update.GetTokens(); len(text) > 0 {
			tokens = nil
			if err := json.Unmarshal(text, &tokens); err != nil {
				return fault.New(fault.Internal, "a coordinator's tokens cannot be read: %w", err)
			}
		}
		if update.GetMore() || update.GetVersion() == 0 {
			continue
		}
		table := route.Table{Version: update.GetVersion(), Tokens: tokens}
		for _, name := range slices.Sorted(maps.Keys(have)) {
			table.Endpoints = append(table.Endpoints, have[name])
		}
		if err := set(table); err != nil {
			return err
		}
	}
}

// ReportRemote is Source.Report by a coordinator, which passes it on.
func ReportRemote(ctx context.Context, client claryv1.RoutesClient, report route.Report) error {
	text, err := json.Marshal(report)
	if err != nil {
		return err
	}
	_, err = client.Report(ctx, &claryv1.RouterReports{Reports: [][]byte{text}})
	return wire.FromStatus(err)
}
