// Package fault classifies errors by what the caller should do about them.
//
// An error is given its kind once, where it is understood; callers ask KindOf and
// never compare texts. One table, kept where each protocol is spoken, maps kinds to
// gRPC and HTTP codes, so that a kind survives the wire.
package fault

import (
	"errors"
	"fmt"
)

// Kind says what the caller should do.
type Kind uint8

const (
	// Internal is a defect or a broken machine: report it.
	Internal Kind = iota
	// Invalid means the request itself is wrong: correct it.
	Invalid
	// NotFound means the named thing does not exist: look up its name.
	NotFound
	// Conflict means the thing has changed or exists already: read it again, then decide.
	Conflict
	// Denied means the caller may not do this: get another token or role.
	Denied
	// Unready means not now: the same request may succeed later.
	Unready
	// Exhausted means a limit was reached: ask for less, or free something first.
	Exhausted
)

var kindNames = map[Kind]string{
	Internal: "internal", Invalid: "invalid", NotFound: "not found", Conflict: "conflict",
	Denied: "denied", Unready: "unready", Exhausted: "exhausted",
}

// String returns the kind's name in lower case.
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Error is an error with a kind.
type Error struct {
	Kind Kind
	err  error
}

// New makes an error of a kind; format and args are as in fmt.Errorf, %w included.
func New(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, err: fmt.Errorf(format, args...)}
}

// Error returns the message without the kind: the kind is for programs.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the wrapped error.
func (e *Error) Unwrap() error { return e.err }

// KindOf returns the kind of the outermost classified error in err's chain, or
// Internal if there is none. KindOf(nil) is Internal too: do not ask.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// Is reports whether err is classified and of the kind.
func Is(err error, kind Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}
