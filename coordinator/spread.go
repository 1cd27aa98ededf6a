package coordinator

import (
	"context"
	"path"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/workload"
)

// Spread copies what listings name to where its owner asked for it. The listings are those of
// tasks of one attempt, in order.
func (s *objectStore) Spread(ctx context.Context, c workload.Copy) ([]string, error) {
	client, target, err := s.target(ctx, c.To)
	if err != nil {
		return nil, err
	}
	spread := &object.Spread{Client: client, To: target}
	for _, text := range c.From {
		listing, err := object.ParseURI(text)
		if err != nil {
			return nil, err
		}
		if err := spread.Copy(ctx, listing, taskOf(listing)); err != nil {
			return nil, fault.New(fault.KindOf(err), "%s: %w", listing, err)
		}
	}
	if c.Live != "" {
		err = s.prune(ctx, client, spread, c)
	}
	return spread.Clashes, err
}

// taskOf is whose a listing is: it lies at TASK/outputs/OUTPUT.jsonl.
func taskOf(listing object.URI) string { return path.Base(path.Dir(path.Dir(listing.Key))) }

// prune removes what tasks have put at the target while they ran, and in the end was not theirs.
func (s *objectStore) prune(ctx context.Context, client *object.Client, spread *object.Spread, c workload.Copy) error {
	attempts, err := object.ParseURI(c.Live)
	if err != nil {
		return err
	}
	kept, err := client.List(ctx, attempts)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(object.SpreadAtOnce)
	for _, info := range kept {
		parts := strings.SplitN(strings.TrimPrefix(info.URI.Key, attempts.Key), "/", 5) // 1/worker-0/outputs/data/a.csv
		if len(parts) < 5 || parts[2] != "outputs" || parts[3] != c.Output || spread.Has(parts[4]) {
			continue
		}
		group.Go(func() error {
			return client.Delete(ctx, object.URI{Bucket: spread.To.Bucket, Key: path.Join(spread.To.Key, parts[4])})
		})
	}
	return group.Wait()
}
