package rpc_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

func (w *world) profile(request *claryv1.ProfileRequest) ([]byte, error) {
	w.Helper()
	stream, err := claryv1.NewDebugClient(w.as(cluster.RoleAdmin)).Profile(w.Context(), request)
	if err != nil {
		return nil, err
	}
	var profile []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return profile, nil
		}
		if err != nil {
			return profile, wire.FromStatus(err)
		}
		profile = append(profile, part.GetData()...)
	}
}

func TestAnAdminMeasuresAMember(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, kind := range []string{ops.Heap, ops.Goroutines} {
			profile, err := w.profile(&claryv1.ProfileRequest{Member: "c1", Profile: kind})
			if err != nil {
				t.Fatal(err)
			}
			unzipped, err := gzip.NewReader(bytes.NewReader(profile))
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(unzipped)
			if err != nil || !bytes.Contains(text, []byte("github.com/clary-ml/clary/")) {
				t.Errorf("%s: %d bytes that name none of our functions: %v", kind, len(text), err)
			}
		}
		for says, request := range map[string]*claryv1.ProfileRequest{
			`there is no member "n9"`:    {Member: "n9", Profile: ops.Heap},
			`there is no agent "c1"`:     {Member: "c1", Role: cluster.RoleAgent, Profile: ops.Heap},
			`role: "king" is unknown`:    {Member: "c1", Role: "king", Profile: ops.Heap},
			`profile: "soul"`:            {Member: "c1", Profile: "soul"},
			"length: 1h0m0s is out of":   {Member: "c1", Profile: ops.CPU, Length: int64(time.Hour)},
			"length: 0s is out of range": {Member: "c1", Profile: ops.CPU},
		} {
			if _, err := w.profile(request); err == nil || !strings.Contains(err.Error(), says) || !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.NotFound) {
				t.Errorf("%v: %v, want %s", request, err, says)
			}
		}
	})
}
