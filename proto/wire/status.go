package wire

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clary-ml/clary/internal/fault"
)

// code is the one table of error kinds and gRPC codes.
func code(kind fault.Kind) codes.Code {
	switch kind {
	case fault.Invalid:
		return codes.InvalidArgument
	case fault.NotFound:
		return codes.NotFound
	case fault.Conflict:
		return codes.Aborted
	case fault.Denied:
		return codes.PermissionDenied
	case fault.Unready:
		return codes.Unavailable
	case fault.Exhausted:
		return codes.ResourceExhausted
	default:
		return codes.Internal
	}
}

// kind reads the table backwards. It also knows the codes that gRPC itself and other
// programs answer with; any other is Internal.
func kind(c codes.Code) fault.Kind {
	switch c {
	case codes.InvalidArgument, codes.OutOfRange, codes.Unimplemented:
		return fault.Invalid
	case codes.NotFound:
		return fault.NotFound
	case codes.Aborted, codes.AlreadyExists, codes.FailedPrecondition:
		return fault.Conflict
	case codes.PermissionDenied, codes.Unauthenticated:
		return fault.Denied
	case codes.Unavailable:
		return fault.Unready
	case codes.ResourceExhausted:
		return fault.Exhausted
	default:
		return fault.Internal
	}
}

// KindByName finds a kind by the name that its String gives; an unknown name is Internal.
func KindByName(name string) fault.Kind {
	for k := fault.Internal; k <= fault.Exhausted; k++ {
		if k.String() == name {
			return k
		}
	}
	return fault.Internal
}

// ToStatus turns an error into one that gRPC sends with the code of its kind. An error
// that is a status already stays as it is; one without a kind is Internal, except that
// the end of a context stays what it is. ToStatus(nil) is nil.
func ToStatus(err error) error {
	var classified *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &classified):
		return status.Error(code(classified.Kind), err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	if _, isStatus := status.FromError(err); isStatus {
		return err
	}
	return status.Error(codes.Internal, err.Error())
}

// FromStatus turns an answer of gRPC back into an error with a kind. The end of a
// context comes back as an error that wraps it; what is not a status stays as it is.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	s, isStatus := status.FromError(err)
	if !isStatus {
		return err
	}
	switch s.Code() {
	case codes.OK:
		return nil
	case codes.Canceled:
		return ended{s.Message(), context.Canceled}
	case codes.DeadlineExceeded:
		return ended{s.Message(), context.DeadlineExceeded}
	case codes.Unavailable:
		return fault.New(kind(s.Code()), "%s", unframed(s.Message()))
	}
	return fault.New(kind(s.Code()), "%s", s.Message())
}

// unframed takes gRPC's own framing off the text of a connection that failed.
func unframed(text string) string {
	for _, mark := range []string{"while dialing: ", "error reading server preface: "} {
		if _, rest, found := strings.Cut(text, mark); found {
			text = strings.TrimSuffix(rest, `"`)
		}
	}
	return text
}

// ended is the end of a context, told by a peer.
type ended struct {
	text  string
	cause error
}

func (e ended) Error() string {
	if e.text == "" || e.text == e.cause.Error() {
		return e.cause.Error()
	}
	return fmt.Sprintf("%s: %v", e.text, e.cause)
}

func (e ended) Unwrap() error { return e.cause }
