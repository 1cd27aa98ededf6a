package wire_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/proto/wire"
)

func TestEveryKindSurvivesTheWire(t *testing.T) {
	seen := map[codes.Code]bool{}
	for kind := fault.Internal; kind <= fault.Exhausted; kind++ {
		sent := wire.ToStatus(fmt.Errorf("outer: %w", fault.New(kind, "why")))
		got := wire.FromStatus(sent)
		if !fault.Is(got, kind) || got.Error() != "outer: why" {
			t.Errorf("%s came back as %s, %q", kind, fault.KindOf(got), got)
		}
		if seen[status.Code(sent)] {
			t.Errorf("%s shares its code %s", kind, status.Code(sent))
		}
		seen[status.Code(sent)] = true
		if wire.KindByName(kind.String()) != kind {
			t.Errorf("%s is not found by its name", kind)
		}
	}
}

func TestTheEndOfAContextStaysWhatItIs(t *testing.T) {
	for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
		for _, err := range []error{cause, fmt.Errorf("read: %w", cause)} {
			if got := wire.FromStatus(wire.ToStatus(err)); !errors.Is(got, cause) {
				t.Errorf("%v came back as %v", err, got)
			}
		}
	}
}

func TestAConnectionThatFailedIsToldWithoutItsFrame(t *testing.T) {
	for sent, told := range map[string]string{
		`connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.1:7420: connect: connection refused"`: "dial tcp 10.0.0.1:7420: connect: connection refused",
		`connection error: desc = "error reading server preface: remote error: tls: bad certificate"`:                    "remote error: tls: bad certificate",
		`no leader answers to "x"`: `no leader answers to "x"`,
	} {
		if err := wire.FromStatus(status.Error(codes.Unavailable, sent)); !fault.Is(err, fault.Unready) || err.Error() != told {
			t.Errorf("%s is told as %v", sent, err)
		}
	}
}

func TestWhatHasNoKindIsInternal(t *testing.T) {
	if got := status.Code(wire.ToStatus(errors.New("odd"))); got != codes.Internal {
		t.Errorf("an error without a kind has code %s", got)
	}
	if got := wire.FromStatus(status.Error(codes.DataLoss, "odd")); !fault.Is(got, fault.Internal) {
		t.Errorf("a code without a kind came back as %v", got)
	}
	if wire.ToStatus(nil) != nil || wire.FromStatus(nil) != nil {
		t.Error("no error became one")
	}
	if wire.KindByName("rubbish") != fault.Internal {
		t.Error("an unknown kind is not internal")
	}
	plain := errors.New("plain")
	if got := wire.FromStatus(plain); got != plain {
		t.Errorf("what is no status became %v", got)
	}
	if sent := status.Error(codes.Unavailable, "later"); wire.ToStatus(sent) != sent {
		t.Error("a status was changed")
	}
}
