package yonder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// A Code says what kind of failure an error is, so that a program can act on it.
// The codes and their numbers are gRPC's, without OK: the zero Code is no failure.
type Code uint8

// The codes.
const (
	Canceled           Code = wire.CodeCanceled // the caller gave up
	Unknown            Code = 2                 // an error without a code
	InvalidArgument    Code = 3                 // the arguments are wrong, whatever the state of things
	DeadlineExceeded   Code = wire.CodeDeadline // the time was up
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7 // the caller is known and may not
	ResourceExhausted  Code = wire.CodeExhausted
	FailedPrecondition Code = 9  // not in this state; trying again does not help
	Aborted            Code = 10 // a conflict; trying the whole transaction again may help
	OutOfRange         Code = 11
	Unimplemented      Code = 12                   // no such procedure
	Internal           Code = wire.CodeInternal    // a bug: of the handler, or of yonder
	Unavailable        Code = wire.CodeUnavailable // no connection, or the server is going; trying again may help
	DataLoss           Code = 15
	Unauthenticated    Code = 16 // the caller is not known
)

var codeNames = [...]string{
	0: "ok", Canceled: "canceled", Unknown: "unknown", InvalidArgument: "invalid_argument",
	DeadlineExceeded: "deadline_exceeded", NotFound: "not_found", AlreadyExists: "already_exists",
	PermissionDenied: "permission_denied", ResourceExhausted: "resource_exhausted",
	FailedPrecondition: "failed_precondition", Aborted: "aborted", OutOfRange: "out_of_range",
	Unimplemented: "unimplemented", Internal: "internal", Unavailable: "unavailable",
	DataLoss: "data_loss", Unauthenticated: "unauthenticated",
}

// String returns the code's name in lower case, such as "not_found".
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "code_" + strconv.Itoa(int(c))
}

// MarshalText returns the code's name.
func (c Code) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText accepts what MarshalText returns.
func (c *Code) UnmarshalText(text []byte) error {
	for i, name := range codeNames {
		if name == string(text) {
			*c = Code(i)
			return nil
		}
	}
	if number, ok := strings.CutPrefix(string(text), "code_"); ok {
		if n, err := strconv.ParseUint(number, 10, 8); err == nil {
			*c = Code(n)
			return nil
		}
	}
	return fmt.Errorf("yonder: unknown code %q", text)
}

// CodeOf returns the code of the first [Error] that err is or wraps. Of other errors
// it knows the contexts' and package fs's; the rest are [Unknown]. The code of nil
// is 0.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return cmp.Or(e.Code, Unknown)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, fs.ErrNotExist):
		return NotFound
	case errors.Is(err, fs.ErrExist):
		return AlreadyExists
	case errors.Is(err, fs.ErrPermission):
		return PermissionDenied
	}
	return Unknown
}
