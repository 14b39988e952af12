package yonder_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
	runAll(t, func(t *testing.T, m mode) {
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
	runAll(t, func(t *testing.T, m mode) {
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

func TestBuiltinErrors(t *testing.T) {
	builtin := []error{
		context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe,
		fs.ErrInvalid, fs.ErrPermission, fs.ErrExist, fs.ErrNotExist, fs.ErrClosed, net.ErrClosed, errors.ErrUnsupported,
	}
	_, notExist := os.Open("/nowhere/at/all") // the operating system's own error
	errs := map[string]error{"open": notExist}
	for i, err := range builtin {
		errs[fmt.Sprint(i)] = err
		errs[fmt.Sprint("wrapped ", i)] = fmt.Errorf("wrapped: %w", yonder.Errorf(yonder.Aborted, "once more: %w", err))
	}
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, identity)
		fail := failing(t, m, nil, errs)
		for name, sent := range errs {
			got := fail(name)
			for _, target := range builtin {
				if is := errors.Is(got, target); is != errors.Is(sent, target) {
					t.Errorf("errors.Is(%q, %q) is %t", got, target, is)
				}
			}
			if textOf(got) != sent.Error() {
				t.Errorf("got %v, want %v", got, sent)
			}
		}
	})
}

// Errors of the kinds that programs define.
type (
	quotaError struct { // a pointer is the error
		Limit int
		Scope scope
	}
	scope     struct{ Name string }
	exitError struct{ Code int } // a value is
	kindError string             // so is a string
	busyError struct{}           // a sentinel that has its own Is
	nextError struct {           // wraps another besides its fields
		Attempt int
		err     error
	}
	crashError struct{ how string } // one whose methods panic
)

var (
	errSold    = errors.New("sold out")
	errLate    = errors.New("too late")
	errPrivate = errors.New("not listed")
)

func (e *quotaError) Error() string    { return fmt.Sprintf("quota of %d exceeded", e.Limit) }
func (e exitError) Error() string      { return fmt.Sprintf("exit status %d", e.Code) }
func (e kindError) Error() string      { return "kind " + string(e) }
func (busyError) Error() string        { return "busy" }
func (busyError) Is(target error) bool { return target == errLate }
func (e *nextError) Error() string     { return fmt.Sprintf("attempt %d: %v", e.Attempt, e.err) }
func (e *nextError) Unwrap() error     { return e.err }
func (e *crashError) Error() string    { return e.crash("Error") }
func (e *crashError) Is(error) bool    { return e.crash("Is") == "" }
func (e *crashError) Unwrap() error    { e.crash("Unwrap"); return nil }
func (e *crashError) crash(in string) string {
	if e.how == in { // which panics if e is nil
		panic("crash in " + in)
	}
	return "crash"
}

var listedErrors = map[string]error{
	"sold": errSold, "late": errLate, "quota": (*quotaError)(nil), "exit": exitError{}, "kind": kindError(""),
	"next": (*nextError)(nil),
}

func TestListedErrors(t *testing.T) {
	errs := map[string]error{
		"sentinel": errSold,
		"wrapped":  fmt.Errorf("tickets: %w", fmt.Errorf("row 1: %w", errSold)),
		"coded":    yonder.Errorf(yonder.FailedPrecondition, "tickets: %w", errSold),
		"private":  errPrivate,
		"pointer":  &quotaError{10, scope{"disk"}},
		"value":    exitError{3},
		"string":   kindError("blue"),
		"deep":     fmt.Errorf("a: %w", yonder.Errorf(yonder.ResourceExhausted, "b: %w", &quotaError{11, scope{"net"}})),
		"both":     fmt.Errorf("%w, %w", &quotaError{Limit: 12}, errSold),
		"joined":   errors.Join(errSold, fmt.Errorf("x: %w", exitError{4}), yonder.Errorf(yonder.NotFound, "y"), io.EOF),
		"nested":   errors.Join(errors.Join(errLate, errors.Join(errSold)), errPrivate),
		"own Is":   fmt.Errorf("line: %w", busyError{}),
		"next":     fmt.Errorf("z: %w", &nextError{2, &nextError{1, errSold}}),
	}
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, identity)
		fail := failing(t, m, listedErrors, errs)
		for name, sent := range errs {
			got := fail(name)
			if textOf(got) != sent.Error() || yonder.CodeOf(got) != yonder.CodeOf(sent) || !yonder.IsRemote(got) {
				t.Errorf("%s: got %v (%v), want %v (%v)", name, got, yonder.CodeOf(got), sent, yonder.CodeOf(sent))
			}
			for _, target := range []error{errSold, errLate, io.EOF, io.ErrUnexpectedEOF, exitError{3}, exitError{4}, exitError{5}, kindError("blue")} {
				if is := errors.Is(got, target); is != errors.Is(sent, target) {
					t.Errorf("%s: errors.Is(%q, %q) is %t", name, got, target, is)
				}
			}
			for as, f := range map[string]func(error) (any, bool){
				"quota": func(err error) (any, bool) { e, ok := errors.AsType[*quotaError](err); return e, ok },
				"exit":  func(err error) (any, bool) { e, ok := errors.AsType[exitError](err); return e, ok },
				"kind":  func(err error) (any, bool) { e, ok := errors.AsType[kindError](err); return e, ok },
				"next": func(err error) (any, bool) {
					e, ok := errors.AsType[*nextError](err)
					if !ok {
						return 0, false
					}
					return e.Attempt, ok
				},
			} {
				gotE, gotOK := f(got)
				wantE, wantOK := f(sent)
				if diff := cmp.Diff(wantE, gotE); diff != "" || gotOK != wantOK {
					t.Errorf("%s: errors.As %s: %t, want %t %s", name, as, gotOK, wantOK, diff)
				}
			}
			if m != inProcess && errors.Is(got, errPrivate) {
				t.Errorf("%s: it is an error that nobody has listed", name)
			}
		}
	})
}

// What only one end has listed crosses as its text.
func TestErrorsListedOnOneEnd(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, "there is one list")
		fail := func(err error) error { return err }
		errs := map[string]error{"sentinel": fmt.Errorf("a: %w", errSold), "type": exitError{3}}
		proc := func(name string) error { return fail(errs[name]) }
		server := yonder.Server{Errors: listedErrors}
		server.Register("fail", proc)
		var other yonder.Server
		other.Register("fail", proc)
		for _, c := range []*yonder.Client{
			m.dialer(t, &server, new(yonder.Dialer)),
			m.dialer(t, &other, &yonder.Dialer{Errors: listedErrors}),
			m.dialer(t, &server, &yonder.Dialer{Errors: map[string]error{"exit": errSold, "sold": exitError{}}}), // mixed up
		} {
			for name, sent := range errs {
				var fail func(string) error
				c.Bind("fail", &fail)
				err := fail(name)
				if _, as := errors.AsType[exitError](err); as || errors.Is(err, errSold) || textOf(err) != sent.Error() || yonder.CodeOf(err) != yonder.Unknown {
					t.Errorf("%s: got %v (%v), errors.As: %t", name, err, yonder.CodeOf(err), as)
				}
			}
		}
	})
}

// Both ends list by name, and the values may differ.
func TestErrorsListedDifferently(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, identity)
		m.cannot(t, inProcess, "there is one list")
		srv := yonder.Server{Errors: map[string]error{"e": errSold, "t": exitError{}}}
		srv.Register("sold", func() error { return fmt.Errorf("a: %w", errSold) })
		srv.Register("exit", func() error { return exitError{7} })
		type status struct {
			quotaError
			Code int64
		}
		c := m.dialer(t, &srv, &yonder.Dialer{Errors: map[string]error{"e": errLate, "t": (*status)(nil)}})
		if err := c.Call(t.Context(), yonder.NewCall("sold")); !errors.Is(err, errLate) || errors.Is(err, errSold) {
			t.Errorf("sold: %v", err)
		}
		err := c.Call(t.Context(), yonder.NewCall("exit"))
		if e, ok := errors.AsType[*status](err); !ok || e.Code != 7 || textOf(err) != "exit status 7" {
			t.Errorf("exit: %v, %v", err, e)
		}
	})
}

func TestErrorsPanics(t *testing.T) {
	want := `yonder: Errors: "x" is nil; give a sentinel, or a nil pointer or zero value of an error type`
	c, s := net.Pipe()
	defer c.Close()
	d := yonder.Dialer{Errors: map[string]error{"x": nil}}
	if got := panicOf(func() { d.NewClient(c) }); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	srv := yonder.Server{Errors: map[string]error{"x": nil}}
	if got := panicOf(func() { srv.ServeConn(s) }); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	want = `yonder: Errors: "yonder.unrun": names that begin with "yonder." are yonder's own; use another`
	d = yonder.Dialer{Errors: map[string]error{"yonder.unrun": errZero}}
	if got := panicOf(func() { d.NewClient(c) }); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestDetails(t *testing.T) {
	type violation struct {
		Field  string
		Limits map[string]int
		Inner  *violation
	}
	details := violation{"age", map[string]int{"max": 150}, &violation{Field: "year"}}
	coded := &yonder.Error{Code: yonder.InvalidArgument, Message: "bad", Details: details, Err: errZero}
	errs := map[string]error{
		"struct": coded, "wrapped": fmt.Errorf("outer: %w", coded), "joined": errors.Join(errZero, coded),
		"pointer": &yonder.Error{Code: yonder.Aborted, Details: &details},
		"string":  &yonder.Error{Code: yonder.Aborted, Details: "retry tomorrow"},
		"number":  &yonder.Error{Code: yonder.Aborted, Details: 30},
		"list":    &yonder.Error{Code: yonder.Aborted, Details: []string{"a", "b"}},
		"none":    &yonder.Error{Code: yonder.Aborted},
		"broken":  &yonder.Error{Code: yonder.Aborted, Message: "kept", Details: make(chan int)},
		"plain":   errZero,
	}
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, identity)
		fail := failing(t, m, nil, errs)
		for _, name := range []string{"struct", "wrapped", "joined"} {
			err := fail(name)
			got, ok := yonder.DetailsAs[violation](err)
			if diff := cmp.Diff(details, got); diff != "" || !ok || yonder.CodeOf(err) != yonder.InvalidArgument {
				t.Errorf("%s: %t (%v) %s", name, ok, yonder.CodeOf(err), diff)
			}
			// A wrapped error that is wrapped once more here.
			if got, ok := yonder.DetailsAs[violation](fmt.Errorf("here: %w", err)); !ok || got.Field != "age" {
				t.Errorf("%s: wrapped: %v, %t", name, got, ok)
			}
			// Another type that fits, a type that does not, and a plain value.
			if got, ok := yonder.DetailsAs[struct{ Field string }](err); !ok || got.Field != "age" {
				t.Errorf("%s as a smaller struct: %v, %t", name, got, ok)
			}
			if got, ok := yonder.DetailsAs[int](err); ok {
				t.Errorf("%s as an int: %v", name, got)
			}
			e, _ := errors.AsType[*yonder.Error](err)
			if plain, ok := e.Details.(map[string]any); m != inProcess && (!ok || plain["Field"] != "age") {
				t.Errorf("%s: Details: %#v", name, e.Details)
			}
		}
		if got, ok := yonder.DetailsAs[*violation](fail("pointer")); !ok || cmp.Diff(&details, got) != "" {
			t.Errorf("pointer: %v, %t", got, ok)
		}
		if got, ok := yonder.DetailsAs[string](fail("string")); !ok || got != "retry tomorrow" {
			t.Errorf("string: %v, %t", got, ok)
		}
		if got, ok := yonder.DetailsAs[int](fail("number")); !ok || got != 30 {
			t.Errorf("number: %v, %t", got, ok)
		}
		if got, ok := yonder.DetailsAs[[]string](fail("list")); !ok || !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("list: %v, %t", got, ok)
		}
		for _, name := range []string{"none", "broken", "plain"} {
			err := fail(name)
			if got, ok := yonder.DetailsAs[string](err); ok || err == nil {
				t.Errorf("%s: %v, %t", name, got, ok)
			}
			if name == "broken" && (textOf(err) != "kept" || yonder.CodeOf(err) != yonder.Aborted) {
				t.Errorf("%s: %v (%v)", name, err, yonder.CodeOf(err))
			}
		}
		if got, ok := yonder.DetailsAs[string](nil); ok {
			t.Errorf("nil: %v", got)
		}
	})
}

// An error that came from another process goes on to the next one as it is.
func TestErrorsAreRelayed(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, identity)
		errs := map[string]error{
			"all":  &yonder.Error{Code: yonder.NotFound, Message: "no such thing", Details: "look elsewhere", Err: fmt.Errorf("x: %w", errSold)},
			"type": fmt.Errorf("y: %w", &quotaError{Limit: 5}),
		}
		fail := failing(t, m, listedErrors, errs)
		relay := yonder.Server{Errors: listedErrors}
		relay.Register("fail", func(name string) error { return fail(name) })
		var c *yonder.Client
		if m == inProcess {
			c = m.client(t, &relay)
		} else {
			c = m.dialer(t, &relay, &yonder.Dialer{Errors: listedErrors})
		}
		err := c.Call(t.Context(), yonder.NewCall("fail", "all"))
		if details, _ := yonder.DetailsAs[string](err); textOf(err) != "no such thing" || yonder.CodeOf(err) != yonder.NotFound || !errors.Is(err, errSold) || details != "look elsewhere" {
			t.Errorf("got %v (%v), details %q", err, yonder.CodeOf(err), details)
		}
		err = c.Call(t.Context(), yonder.NewCall("fail", "type"))
		if e, ok := errors.AsType[*quotaError](err); !ok || e.Limit != 5 || textOf(err) != "y: quota of 5 exceeded" {
			t.Errorf("got %v, %v", err, e)
		}
	})
}

func TestIsRemote(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("fail", func() error { return errZero })
		srv.Register("wait", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		c := m.client(t, &srv)
		remote := func(name string, want bool, ctx context.Context, call *yonder.Call) {
			t.Helper()
			err := c.Call(ctx, call)
			if err == nil || yonder.IsRemote(err) != want || yonder.IsRemote(fmt.Errorf("here: %w", err)) != want {
				t.Errorf("%s: %v: IsRemote is %t", name, err, yonder.IsRemote(err))
			}
		}
		remote("the handler's", true, t.Context(), yonder.NewCall("fail"))
		remote("no such procedure", true, t.Context(), yonder.NewCall("missing"))
		remote("no such signature", true, t.Context(), yonder.NewCall("fail", 1))
		remote("an argument", false, t.Context(), yonder.NewCall("fail", make(chan int)))
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		remote("canceled before", false, ended, yonder.NewCall("fail"))
		soon, cancel := context.WithTimeout(t.Context(), 1)
		defer cancel()
		remote("too late", false, soon, yonder.NewCall("wait"))
		srv.Close()
		remote("closed", false, t.Context(), yonder.NewCall("fail"))
		if yonder.IsRemote(errZero) || yonder.IsRemote(nil) || yonder.IsRemote(yonder.Errorf(yonder.NotFound, "here")) {
			t.Error("IsRemote of what is here")
		}
	})
}

func noMap() map[string]int { return nil }

// panicking are handlers that do not return, and what the log must say of each.
var panicking = map[string]struct {
	f   func() error
	log string
}{
	"panic":          {func() error { panic("boom") }, "boom"},
	"panic an error": {func() error { panic(errSold) }, "sold out"},
	"panic nil":      {func() error { panic(nil) }, "panic called with nil argument"},
	"nil map":        {func() error { noMap()["x"] = 1; return nil }, "assignment to entry in nil map"},
	"index":          {func() error { return []error{}[len(os.Args[:0])] }, "index out of range"},
	"Error":          {func() error { return &crashError{"Error"} }, "crash in Error"},
	"Is":             {func() error { return &crashError{"Is"} }, "crash in Is"},
	"Unwrap":         {func() error { return &crashError{"Unwrap"} }, "crash in Unwrap"},
	"typed nil":      {func() error { return (*crashError)(nil) }, "nil pointer dereference"},
	"inner":          {func() error { return yonder.Errorf(yonder.NotFound, "x: %w", &crashError{"Is"}) }, "crash in Is"},
}

// A panic of the user's code, in a handler or in the methods of an error, is the caller's
// Internal error and the operator's stack, and nothing else.
func TestPanics(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		log := new(logBuffer)
		srv := yonder.Server{Logger: log.logger()}
		for name, p := range panicking {
			srv.Register(name, p.f)
			srv.Register(name+" in a stream", func() iter.Seq2[int, error] {
				return func(yield func(int, error) bool) { yield(0, p.f()) }
			})
		}
		yonder.Handle(&srv, "hot", func(context.Context, int) (int, error) { panic("boom") })
		srv.Register("fine", func() int { return 1 })
		c := m.client(t, &srv)
		hot := yonder.Remote[int, int](c, "hot")
		check := func(name, say string, err error) {
			t.Helper()
			if m == inProcess && name == "inner" || name == "inner in a stream" && m == inProcess {
				return // there its methods are the caller's to call
			}
			if yonder.CodeOf(err) != yonder.Internal || !yonder.IsRemote(err) || strings.Contains(textOf(err), say) || strings.Contains(textOf(err), "goroutine") {
				t.Errorf("%s: got %v (%v)", name, err, yonder.CodeOf(err))
			}
			if text := log.String(); !strings.Contains(text, say) || !strings.Contains(text, "error_test.go") {
				t.Errorf("%s: the log does not say %q, or has no stack:\n%s", name, say, text)
			}
		}
		// With a context that can end, and without: in process these are two ways.
		for _, ctx := range []context.Context{t.Context(), context.Background()} {
			for _, name := range slices.Sorted(maps.Keys(panicking)) {
				if name == "inner" && !m.can(t, identity) { // nobody calls its Is
					continue
				}
				log.reset()
				check(name, panicking[name].log, c.Call(ctx, yonder.NewCall(name)))
				if !m.can(t, streams) {
					continue
				}
				log.reset()
				seq, err := yonder.Invoke[iter.Seq2[int, error]](ctx, c, name+" in a stream")
				if err != nil {
					t.Fatal(err)
				}
				_, err = collect(seq)
				check(name+" in a stream", panicking[name].log, err)
			}
			log.reset()
			_, err := hot(ctx, 1)
			check("hot", "boom", err)
			if n, err := yonder.Invoke[int](ctx, c, "fine"); n != 1 || err != nil {
				t.Errorf("another call: %d, %v", n, err)
			}
		}
	})
}

// A handler that ends its goroutine has answered nothing.
func TestGoexit(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		log := new(logBuffer)
		srv := yonder.Server{Logger: log.logger()}
		srv.Register("exit", func() { runtime.Goexit() })
		srv.Register("fine", func() int { return 1 })
		c := m.client(t, &srv)
		for range 3 {
			err := c.Call(t.Context(), yonder.NewCall("exit"))
			if yonder.CodeOf(err) != yonder.Internal || !yonder.IsRemote(err) {
				t.Errorf("got %v (%v)", err, yonder.CodeOf(err))
			}
		}
		if n, err := yonder.Invoke[int](t.Context(), c, "fine"); n != 1 || err != nil {
			t.Errorf("the next call: %d, %v", n, err)
		}
		if !strings.Contains(log.String(), "runtime.Goexit was called") {
			t.Errorf("the log does not say so:\n%s", log)
		}
	})
}

// Errors that wrap themselves: once, and several times.
type (
	selfish      struct{}
	selfishOnce  struct{ selfish }
	selfishOften struct{ selfish }
)

func (*selfish) Error() string          { return "selfish" }
func (e *selfishOnce) Unwrap() error    { return e }
func (e *selfishOften) Unwrap() []error { return []error{e, e, e} }

// However an error is made, what crosses is bounded.
func TestEndlessErrors(t *testing.T) {
	deep, wide := errSold, make([]error, 1000)
	for i := range wide {
		deep = fmt.Errorf("%.10w", deep)
		wide[i] = fmt.Errorf("error %d", i)
	}
	wide[10], wide[900] = errSold, yonder.Errorf(yonder.NotFound, "far away")
	errs := map[string]error{
		"itself": new(selfishOnce), "itselves": new(selfishOften),
		"deep": fmt.Errorf("%w, %w", errLate, deep), "wide": errors.Join(wide...),
	}
	runAll(t, func(t *testing.T, m mode) {
		fail := failing(t, m, listedErrors, errs)
		for name, sent := range errs {
			err := fail(name)
			if textOf(err) != sent.Error() || !yonder.IsRemote(err) {
				t.Errorf("%s: got %v", name, err)
			}
			if !m.can(t, identity) {
				continue
			}
			// That errors.Is ends is what this is about.
			if is := errors.Is(err, errSold); is != (name == "wide") {
				t.Errorf("%s: errors.Is: %t", name, is)
			}
			if is := errors.Is(err, errLate); is != (name == "deep") {
				t.Errorf("%s: errors.Is: %t", name, is)
			}
		}
	})
}

// cyclicError contains itself, or is in its details.
type cyclicError struct{ Self *cyclicError }

func (*cyclicError) Error() string { return "cyclic" }

// TestCyclicErrors is a regression: details, or the value of a listed type, that contain
// themselves ended the process, which had no stack left.
func TestCyclicErrors(t *testing.T) {
	cyclic := new(cyclicError)
	cyclic.Self = cyclic
	listed := map[string]error{"cyclic": (*cyclicError)(nil)}
	errs := map[string]error{"listed": cyclic, "details": &yonder.Error{Code: yonder.Aborted, Message: "cyclic", Details: cyclic}}
	runAll(t, func(t *testing.T, m mode) {
		fail := failing(t, m, listed, errs)
		for name, sent := range errs {
			if err := fail(name); textOf(err) != "cyclic" || yonder.CodeOf(err) != yonder.CodeOf(sent) {
				t.Errorf("%s: got %v (%v)", name, err, yonder.CodeOf(err))
			}
		}
	})
}

func TestLargeErrors(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		var srv yonder.Server
		text := func(n int) string { return strings.Repeat("x", n) }
		srv.Register("fail", func(n int) error { return yonder.Errorf(yonder.NotFound, "%s: %w", text(n), errZero) })
		srv.Register("stream", func(n int) iter.Seq2[int, error] {
			return countTo(3, &yonder.Error{Code: yonder.NotFound, Message: text(n), Details: text(n), Err: io.EOF})
		})
		srv.Register("read", func(n int) io.Reader {
			return io.MultiReader(strings.NewReader("abc"), &failingReader{yonder.Errorf(yonder.NotFound, "%s", text(n))})
		})
		srv.Register("take", func(n int, xs iter.Seq2[int, error]) error { _, err := collect(xs); return err })
		c := m.client(t, &srv)
		for _, n := range []int{0, 1000, 64<<10 - 20, 64 << 10, 1 << 20} {
			err := c.Call(t.Context(), yonder.NewCall("fail", n))
			if want := text(n) + ": " + errZero.Error(); textOf(err) != want || yonder.CodeOf(err) != yonder.NotFound {
				t.Errorf("a text of %d bytes: %d bytes (%v)", n, len(textOf(err)), yonder.CodeOf(err))
			}
			// An error in the middle of a stream must fit in a frame. If it does not, it is cut.
			seq, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "stream", n)
			if err != nil {
				t.Fatal(err)
			}
			list, err := collect(seq)
			if len(list) != 3 || yonder.CodeOf(err) != yonder.NotFound || n > 0 && !strings.HasPrefix(textOf(err), text(min(n, 1000))) {
				t.Errorf("a stream's, of %d bytes: %v, %d bytes (%v)", n, list, len(textOf(err)), yonder.CodeOf(err))
			}
			if n < 10_000 && !errors.Is(err, io.EOF) {
				t.Errorf("a stream's, of %d bytes, has lost what it wraps", n)
			}
			r, err := yonder.Invoke[io.Reader](t.Context(), c, "read", n)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r); string(b) != "abc" || yonder.CodeOf(err) != yonder.NotFound {
				t.Errorf("a reader's, of %d bytes: %q, %d bytes (%v)", n, b, len(textOf(err)), yonder.CodeOf(err))
			}
			err = c.Call(t.Context(), yonder.NewCall("take", n, iter.Seq2[int, error](countTo(3, yonder.Errorf(yonder.NotFound, "%s", text(n))))))
			if yonder.CodeOf(err) != yonder.NotFound {
				t.Errorf("a stream's to the server, of %d bytes: %d bytes (%v)", n, len(textOf(err)), yonder.CodeOf(err))
			}
		}
	})
}

type failingReader struct{ err error }

func (r *failingReader) Read([]byte) (int, error) { return 0, r.err }

// An error that is larger than a message keeps its code.
func TestTooLargeError(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, "nothing is encoded")
		var srv yonder.Server
		srv.Register("fail", func(n int) error {
			return &yonder.Error{Code: yonder.DataLoss, Message: "m", Details: bytes.Repeat([]byte{1}, n)}
		})
		c := m.dialer(t, &srv, &yonder.Dialer{Limits: yonder.Limits{MaxMessage: 100 << 10}})
		for _, n := range []int{10, 200 << 10, 10} {
			err := c.Call(t.Context(), yonder.NewCall("fail", n))
			details, _ := yonder.DetailsAs[[]byte](err)
			if yonder.CodeOf(err) != yonder.DataLoss || n == 10 && len(details) != 10 {
				t.Errorf("details of %d bytes: %v (%v), %d bytes", n, err, yonder.CodeOf(err), len(details))
			}
		}
	})
}

func TestErrorf(t *testing.T) {
	err := yonder.Errorf(yonder.NotFound, "user %d: %w", 3, errSold)
	if err.Error() != "user 3: sold out" || yonder.CodeOf(err) != yonder.NotFound || errors.Unwrap(err) != errSold {
		t.Errorf("got %v", err)
	}
	err = yonder.Errorf(yonder.NotFound, "%w, %w", errSold, errLate)
	if err.Error() != "sold out, too late" || !errors.Is(err, errSold) || !errors.Is(err, errLate) {
		t.Errorf("got %v", err)
	}
	if err = yonder.Errorf(yonder.NotFound, "none"); errors.Unwrap(err) != nil || err.Error() != "none" {
		t.Errorf("got %v", err)
	}
	if got := (&yonder.Error{Code: yonder.NotFound, Err: errSold}).Error(); got != "sold out" {
		t.Errorf("got %q", got)
	}
}
