package object

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// SpreadAtOnce is how many objects are copied at a time.
const SpreadAtOnce = 16

// Spread brings what listings name below one prefix. Doing it twice is no harm.
type Spread struct {
	Client *Client
	To     URI // prefix
	// Clashes are names that an earlier listing has too, with other content: the earlier one's
	// counts. The first twenty are kept.
	Clashes []string

	seen map[string]string // digest by name
}

// Copy copies what one listing names; whose says whose it is, for clashes.
func (s *Spread) Copy(ctx context.Context, listing URI, whose string) error {
	folder, err := ListedFolder(listing)
	if err != nil {
		return err
	}
	names, err := s.fresh(ctx, listing, whose)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(SpreadAtOnce)
	for _, name := range names {
		group.Go(func() error { return s.Client.Copy(ctx, s.To.Join(name), folder.Join(name)) })
	}
	return group.Wait()
}

// fresh are the names of a listing that no earlier one has.
func (s *Spread) fresh(ctx context.Context, listing URI, whose string) ([]string, error) {
	body, err := s.Client.Get(ctx, listing, 0, -1)
	if err != nil {
		return nil, err
	}
	defer body.Close() //nolint:errcheck // only read
	if s.seen == nil {
		s.seen = map[string]string{}
	}
	var names []string
	err = ReadListing(body, func(listed Listed) error {
		digest, there := s.seen[listed.Name]
		if !there {
			s.seen[listed.Name] = listed.SHA256
			names = append(names, listed.Name)
		} else if digest != listed.SHA256 && len(s.Clashes) < mostClashes {
			s.Clashes = append(s.Clashes, listed.Name+" of "+whose)
		}
		return nil
	})
	return names, err
}

// Has reports whether a listing named it.
func (s *Spread) Has(name string) bool {
	_, there := s.seen[name]
	return there
}
