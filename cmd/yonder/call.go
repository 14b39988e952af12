package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/fn"
)

const callLong = `Call calls the procedure NAME of the server at ADDR, host:port, tls://host:port
or unix:///path, and prints its results as JSON, one a line.

Arguments are read as the procedure's signature says, which "yonder ls" shows:

  numbers, true, false, null, objects, arrays
                  as JSON; a field that is left out is zero
  string          the text itself, or a JSON string: World, "World"
  []byte          the text itself, or base64 in a JSON string
  time.Duration   1ms, 1.5h, or a number of nanoseconds
  time.Time       as RFC 3339: 2006-01-02T15:04:05Z
  any             JSON; what is not is a string
  io.Reader       the text itself
  iter.Seq        a JSON array of the values
  func            none: each time the server calls it, its arguments are printed
                  as a JSON array, and it returns zero values
  *T              at the end, may be left out, which is null

In the place of an argument, - reads standard input, and @FILE a file: its bytes
for a reader, which holds only a piece in memory, or a []byte; its text for a
string; a value a line, as it comes, for a stream; else its JSON. A string that
begins with @, or is -, is given in JSON: '"@home"'. Arguments that begin with a
dash and are no numbers follow a --.

Results that are streams are printed as they come, one value a line; what a reader
yields is copied as it is. NaN and infinities are printed as strings.

Ctrl-C cancels the call.

Errors go to standard error with their code. Exit statuses:

   0  the call succeeded
   1  something failed here, such as reading a file
   2  the command line is wrong, and nothing was called
   3  a line read for a stream is wrong; what came before it was sent
`

func callLongText() string {
	var b strings.Builder
	b.WriteString(callLong)
	for code := yonder.Canceled; code <= yonder.Unauthenticated; code++ {
		fmt.Fprintf(&b, "  %2d  %v\n", statusOf(code), code)
	}
	fmt.Fprintf(&b, "  %2d  another code\n", statusOther)
	return strings.TrimSpace(b.String())
}

func callCommand() *cobra.Command {
	var c caller
	var codec string
	var headers []string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "call [flags] ADDR NAME [ARG...]",
		Short: "Call a procedure of a server",
		Long:  callLongText(),
		Example: `  yonder call 127.0.0.1:1234 queryUser 1
  yonder call 127.0.0.1:1234 CalcService.CalcTwoNumber '{"Number1": 6, "Number2": 7, "Operator": "*"}'
  yonder call 127.0.0.1:1234 countdown 3 500ms --timeout 5s
  yonder call 127.0.0.1:1234 sha256 @go.mod
  tar c . | yonder call 127.0.0.1:1234 sha256 -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fmt.Errorf("call needs the address of a server and the name of a procedure: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for i := range args {
				args[i] = strings.TrimPrefix(args[i], hidden)
			}
			switch codec {
			case "cbor":
				c.codec = yonder.CBOR
			case "json":
				c.codec = yonder.JSON
			default:
				return usageError{fmt.Sprintf("--codec %q: there are cbor and json", codec), cmd.CommandPath()}
			}
			ctx := cmd.Context()
			for _, h := range headers {
				key, value, ok := strings.Cut(h, "=")
				if !ok || key == "" {
					return usageError{fmt.Sprintf("--header %q: give it as key=value", h), cmd.CommandPath()}
				}
				ctx = yonder.WithMetadata(ctx, key, value)
			}
			ctx, cancel, err := withTimeout(ctx, cmd, timeout)
			if err != nil {
				return err
			}
			defer cancel()
			c.in.stdin, c.out.w = cmd.InOrStdin(), cmd.OutOrStdout()
			return c.call(ctx, args[0], args[1], args[2:])
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if strings.HasPrefix(err.Error(), "unknown") {
			return fmt.Errorf("%w; if it is an argument, write -- before the arguments", err)
		}
		return err
	})
	flags := cmd.Flags()
	flags.DurationVar(&timeout, "timeout", 0, "give up after this `duration`, connecting and streams included (0, the default: never)")
	flags.StringArrayVar(&headers, "header", nil, "metadata to send with the call, as `key=value`; may be given several times")
	c.security.flags(flags)
	flags.StringVar(&codec, "codec", "cbor", "how values are encoded: `cbor or json`")
	return cmd
}

// withTimeout returns a context that ends after a command's --timeout; 0: it does not.
func withTimeout(ctx context.Context, cmd *cobra.Command, timeout time.Duration) (context.Context, context.CancelFunc, error) {
	switch {
	case timeout < 0:
		return nil, nil, usageError{fmt.Sprintf("--timeout %v: it is below zero", timeout), cmd.CommandPath()}
	case timeout == 0:
		return ctx, func() {}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	return ctx, cancel, nil
}

// caller makes one call.
type caller struct {
	codec    yonder.Codec
	security security
	in       input
	out      printer
}

// localError is a failure on this side that ends a call: it is the cause of the call's
// context.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

func (c *caller) call(ctx context.Context, address, name string, words []string) error {
	var client *yonder.Client
	var err error
	procs := builtins()
	if slices.ContainsFunc(procs, func(p yonder.ProcedureInfo) bool { return p.Name == name }) {
		client, err = dial(ctx, address, c.codec, &c.security)
	} else {
		client, procs, err = connect(ctx, address, c.codec, &c.security)
	}
	if err != nil {
		return err
	}
	defer client.Close()
	i := slices.IndexFunc(procs, func(p yonder.ProcedureInfo) bool { return p.Name == name })
	if i < 0 {
		return yonder.Errorf(yonder.Unimplemented, "the server has no procedure %q%s; yonder ls %s lists what it has", name, nearest(name, procs), address)
	}
	p := &procedure{ProcedureInfo: procs[i]}
	if p.sig, err = fn.Parse(p.Signature); err != nil || p.sig == nil {
		return fmt.Errorf("%s: the server's description of it cannot be used: %w", name, errors.Join(err, errNoSignature))
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	fail := func(err error) { cancel(localError{err}) }
	defer c.in.close()
	f, err := bind(client, p)
	if err != nil {
		return err
	}
	args, err := c.arguments(f.Type(), p, words, fail)
	if err != nil {
		return err
	}
	err = c.results(f, append([]reflect.Value{reflect.ValueOf(ctx)}, args...))
	if local, ok := errors.AsType[localError](context.Cause(ctx)); ok {
		return local.error
	}
	if silent := unanswered(ctx, client, address); err != nil && silent != nil {
		return silent
	}
	return err
}

var errNoSignature = errors.New("it is too large, or of another version of yonder")

// nearest suggests what may have been meant by a name.
func nearest(name string, procs []yonder.ProcedureInfo) string {
	folded := strings.ToLower(name)
	for _, p := range procs {
		if have := strings.ToLower(p.Name); have == folded || strings.HasSuffix(have, "."+folded) {
			return fmt.Sprintf(", but %q", p.Name)
		}
	}
	return ""
}

// procedure is what is called.
type procedure struct {
	yonder.ProcedureInfo
	sig *fn.Sig
}

// usage returns an error about the arguments, with what they should be.
func (p *procedure) usage(format string, args ...any) error {
	lines := append([]string{p.Name + ": " + fmt.Sprintf(format, args...), p.Go}, definitions(nil, &fn.Sig{Args: p.sig.Args})...)
	return usageError{strings.Join(lines, "\n\t"), ""}
}

// parameter names the i-th parameter.
func (p *procedure) parameter(i int) string {
	if i < len(p.Params) {
		return fmt.Sprintf("argument %d (%s)", i+1, p.Params[i])
	}
	return fmt.Sprintf("argument %d", i+1)
}

// bind returns a function that calls p. What package reflect or the client cannot do
// with a signature that comes from a server is an error.
func bind(client *yonder.Client, p *procedure) (f reflect.Value, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s cannot be called from here: %v", p.Name, r)
		}
	}()
	f = reflect.New(bindType(p.sig, true))
	client.Bind(p.Name, f.Interface())
	return f.Elem(), nil
}

// results makes the call and prints what comes back.
func (c *caller) results(f reflect.Value, args []reflect.Value) error {
	var out []reflect.Value
	if f.Type().IsVariadic() {
		out = f.CallSlice(args)
	} else {
		out = f.Call(args)
	}
	last := len(out) - 1
	if err, ok := out[last].Interface().(error); ok {
		return err
	}
	for _, v := range out[:last] {
		if err := c.result(v); err != nil {
			return err
		}
	}
	return nil
}

func (c *caller) result(v reflect.Value) error {
	switch {
	case v.Type() == readerType:
		if v.IsNil() {
			return nil
		}
		_, err := io.Copy(&c.out, v.Interface().(io.Reader))
		return err
	case v.Kind() == reflect.Func:
		if v.IsNil() {
			return nil
		}
		for elem, failed := range v.Seq2() {
			if err, ok := failed.Interface().(error); ok {
				return err
			}
			if err := c.out.line(jsonText(elem.Interface())); err != nil {
				return err
			}
		}
		return nil
	}
	return c.out.line(jsonText(v.Interface()))
}

// callback returns a function that prints what it is called with.
func (c *caller) callback(t reflect.Type, fail func(error)) reflect.Value {
	return reflect.MakeFunc(t, func(in []reflect.Value) []reflect.Value {
		values := []any{}
		for i, v := range in {
			if t.IsVariadic() && i == len(in)-1 {
				for j := range v.Len() {
					values = append(values, v.Index(j).Interface())
				}
				continue
			}
			values = append(values, v.Interface())
		}
		out := make([]reflect.Value, t.NumOut())
		for i := range out {
			out[i] = reflect.Zero(t.Out(i))
		}
		if err := c.out.line(jsonText(values)); err != nil {
			fail(err)
			out[len(out)-1] = reflect.ValueOf(&err).Elem()
		}
		return out
	})
}

// printer writes to standard output, whole lines at a time.
type printer struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func (p *printer) line(text string) error {
	_, err := p.Write([]byte(text + "\n"))
	return err
}

func (p *printer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err := p.w.Write(b)
	if err != nil {
		err = fmt.Errorf("cannot write the result: %w", err)
	}
	return n, err
}
