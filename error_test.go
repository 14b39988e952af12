package yonder_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/yonder-rpc/yonder"
)

// failing returns a function that calls a procedure, which returns the error that it finds
// under the name it is given.
func failing(t *testing.T, m mode, listed map[string]error, errs map[string]error) func(name string) error {
	t.Helper()
	srv := &yonder.Server{Errors: listed}
	srv.Register("fail", func(name string) error { return errs[name] })
	var c *yonder.Client
	if m == inProcess {
		c = m.client(t, srv)
	} else {
		c = m.dialer(t, srv, &yonder.Dialer{Errors: listed})
	}
	var fail func(string) error
	c.Bind("fail", &fail)
	return fail
}

var allCodes = []yonder.Code{
	yonder.Canceled, yonder.Unknown, yonder.InvalidArgument, yonder.DeadlineExceeded, yonder.NotFound,
	yonder.AlreadyExists, yonder.PermissionDenied, yonder.ResourceExhausted, yonder.FailedPrecondition,
	yonder.Aborted, yonder.OutOfRange, yonder.Unimplemented, yonder.Internal, yonder.Unavailable,
	yonder.DataLoss, yonder.Unauthenticated,
}

func TestCodes(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("fail", func(code yonder.Code) error { return yonder.Errorf(code, "it is %v", code) })
		srv.Register("wrapped", func(code yonder.Code) error {
			return fmt.Errorf("twice: %w", fmt.Errorf("once: %w", yonder.Errorf(code, "it is %v", code)))
		})
		srv.Register("text", func(code yonder.Code) error { return &yonder.Error{Code: code} })
		c := m.client(t, &srv)
		for name, text := range map[string]string{"fail": "it is %v", "wrapped": "twice: once: it is %v", "text": "%v"} {
			var fail func(yonder.Code) error
			c.Bind(name, &fail)
			for i, code := range append(allCodes, 200) {
				err := fail(code)
				e, ok := err.(*yonder.Error)
				if !ok || e.Code != code || !yonder.IsRemote(err) || e.Error() != fmt.Sprintf(text, code) {
					t.Errorf("%s: code %v: got %v (%v), %T, remote: %t", name, code, err, yonder.CodeOf(err), err, yonder.IsRemote(err))
				}
				if i < len(allCodes) && int(code) != i+1 {
					t.Errorf("code %v is %d, and gRPC's is %d", code, code, i+1)
				}
			}
			// Zero is no code.
			if err := fail(0); name != "wrapped" && yonder.CodeOf(err) != yonder.Unknown {
				t.Errorf("%s: code 0: got %v (%v)", name, err, yonder.CodeOf(err))
			}
		}
	})
}

// An error without a code has that of what it wraps, if this is well known.
func TestCodeOfOthers(t *testing.T) {
	_, notExist := os.Open("/nowhere/at/all")
	errs := map[string]error{
		"plain": errors.New("plain"), "canceled": context.Canceled, "deadline": fmt.Errorf("late: %w", context.DeadlineExceeded),
		"fs": notExist, "exist": fs.ErrExist, "permission": &fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission},
		"zero": &yonder.Error{Message: "zero", Err: fs.ErrNotExist}, "empty": &yonder.Error{},
	}
	want := map[string]yonder.Code{
		"plain": yonder.Unknown, "canceled": yonder.Canceled, "deadline": yonder.DeadlineExceeded, "fs": yonder.NotFound,
		"exist": yonder.AlreadyExists, "permission": yonder.PermissionDenied,
		"zero": yonder.Unknown, "empty": yonder.Unknown, // as the field says
	}
	for name, code := range want {
		if got := yonder.CodeOf(errs[name]); got != code {
			t.Errorf("%s: CodeOf: %v, want %v", name, got, code)
		}
	}
	if got := yonder.CodeOf(nil); got != 0 {
		t.Errorf("CodeOf(nil): %v", got)
	}
	if got := errs["empty"].Error(); got != "unknown" {
		t.Errorf("the text of an empty error: %q", got)
	}
	run(t, func(t *testing.T, m mode) {
		fail := failing(t, m, nil, errs)
		for name, code := range want {
			err := fail(name)
			if yonder.CodeOf(err) != code || textOf(err) != errs[name].Error() || !yonder.IsRemote(err) {
				t.Errorf("%s: got %v (%v), want %v (%v)", name, err, yonder.CodeOf(err), errs[name], code)
			}
		}
		if err := fail("no error"); err != nil {
			t.Errorf("nil: %v", err)
		}
	})
}
