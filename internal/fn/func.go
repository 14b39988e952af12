// Package fn describes, checks and adapts the functions that yonder carries: which signatures
// may cross a connection, how one is described to a peer, whether two descriptions fit, and how
// a function is called with values that were decoded. All reflection on function types is here.
//
// The package is pure: no connection, no goroutine, and of codecs only the plans of package plain,
// which are found once a type, too.
//
// Only [Methods] looks methods up. [reflect.Type.Method] and its siblings stop the linker from
// dropping unused methods in every program that can reach them, so they have a file of their own.
package fn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
)

var (
	contextType    = reflect.TypeFor[context.Context]()
	errorType      = reflect.TypeFor[error]()
	anyType        = reflect.TypeFor[any]()
	boolType       = reflect.TypeFor[bool]()
	bytesType      = reflect.TypeFor[[]byte]()
	readerType     = reflect.TypeFor[io.Reader]()
	readCloserType = reflect.TypeFor[io.ReadCloser]()
	writerType     = reflect.TypeFor[io.Writer]()
)

// Func is what is known of a function type, found once so that a call looks nothing up.
// It is read-only and safe for concurrent use, and must not be copied.
type Func struct {
	Type     reflect.Type // nil if made by [Dynamic]
	Context  bool         // the first parameter is a context
	Variadic bool         // the last of Args is the slice of a variadic parameter
	Error    bool         // the last result is an error
	Args     []Slot       // the parameters without the context
	Results  []Slot       // the results without the error

	// Reply says that the function has the shape of a net/rpc method: its last parameter is a
	// pointer that it fills. Results[0] is what that points to, and Args does not hold it.
	Reply bool

	// Plain says that every argument and result is a [Value].
	Plain bool

	frames sync.Pool   // of *Frame
	sig    func() *Sig // computed once
}

// Callee describes a function that a server may register. The error says which argument or
// result is unsuitable and what to use instead.
func Callee(t reflect.Type) (*Func, error) {
	if f, ok := funcs.Load(t); ok {
		return f.(*Func), nil
	}
	f, err := newFunc(t, false, nil)
	if err != nil {
		return nil, err
	}
	known, _ := funcs.LoadOrStore(t, f)
	return known.(*Func), nil
}

// funcs has what [Callee] has described, *Func by reflect.Type, so that many procedures of one
// type share what a call looks at. The types of a program are few.
var funcs sync.Map

// Caller describes a function that a client may bind. It accepts what [Callee] does, if the last
// result is an error.
func Caller(t reflect.Type) (*Func, error) {
	f, err := Callee(t)
	if err != nil {
		return nil, err
	}
	if !f.Error {
		return nil, errors.New("a bound function must end in error, because a remote call can fail: " + withError(t))
	}
	return f, nil
}

// Dynamic describes the function of a one-off call, from the types of the values at hand. A nil
// type stands for any. A type that implements io.Reader, and does not marshal itself, is a
// [Reader]: the static type of the caller's variable is lost at that point.
func Dynamic(args, results []reflect.Type) (*Func, error) {
	f := &Func{Context: true, Error: true}
	for i, t := range args {
		if t == nil {
			t = anyType
		} else if t.Implements(readerType) && !marshals(t) {
			t = readerType
		}
		if err := f.addArg(i+1, t, false, nil); err != nil {
			return nil, err
		}
	}
	for i, t := range results {
		if err := f.addResult(i+1, t); err != nil {
			return nil, err
		}
	}
	return f.init(), nil
}

// newFunc describes t, inside callbacks of the types outer. With reply set, t must have the
// shape of a net/rpc method.
func newFunc(t reflect.Type, reply bool, outer []reflect.Type) (*Func, error) {
	if t == nil || t.Kind() != reflect.Func {
		return nil, fmt.Errorf("%s is not a function", nameOf(t))
	}
	if slices.Contains(outer, t) {
		return nil, fmt.Errorf("%s takes itself as an argument, which cannot be described; use a callback that takes values", nameOf(t))
	}
	outer = append(outer[:len(outer):len(outer)], t)
	f := &Func{Type: t, Variadic: t.IsVariadic(), Reply: reply}
	first, in, out := 0, t.NumIn(), t.NumOut()
	if in > 0 && t.In(0) == contextType {
		f.Context, first = true, 1
	}
	if out > 0 && t.Out(out-1) == errorType {
		f.Error = true
		out--
	}
	if reply {
		in--
	}
	for i := first; i < in; i++ {
		if err := f.addArg(i-first+1, t.In(i), f.Variadic && i == in-1, outer); err != nil {
			return nil, err
		}
	}
	if reply {
		if err := f.addResult(1, t.In(in).Elem()); err != nil {
			return nil, err
		}
	}
	for i := range out {
		if err := f.addResult(i+1, t.Out(i)); err != nil {
			return nil, err
		}
	}
	return f.init(), nil
}

func (f *Func) addArg(n int, t reflect.Type, variadic bool, outer []reflect.Type) error {
	s, err := newSlot(t, variadic, outer)
	if err == nil && s.Kind == Callback && !s.Func.Error {
		err = errors.New("a callback must end in error, because a remote call can fail: " + withError(t))
	}
	if err != nil {
		return fmt.Errorf("argument %d: %w", n, err)
	}
	f.Args = append(f.Args, s)
	return nil
}

func (f *Func) addResult(n int, t reflect.Type) error {
	if _, _, ok := iterator(t); t.Kind() == reflect.Func && !ok {
		return fmt.Errorf("result %d: %s cannot be a result; a function travels only as an argument", n, nameOf(t))
	}
	s, err := newSlot(t, false, nil)
	if err != nil {
		return fmt.Errorf("result %d: %w", n, err)
	}
	f.Results = append(f.Results, s)
	return nil
}

func (f *Func) init() *Func {
	other := func(s Slot) bool { return s.Kind != Value }
	f.Plain = !slices.ContainsFunc(f.Args, other) && !slices.ContainsFunc(f.Results, other)
	f.sig = sync.OnceValue(func() *Sig { return describe(f) })
	return f
}

// Signature returns the description of f that is sent to a peer. It is made on first use.
func (f *Func) Signature() *Sig { return f.sig() }

// Call calls fv, a function of f's type, with the decoded args, one a [Func.Args], and returns
// one value a [Func.Results] beside the function's own error. The results are there even if the
// error is not nil. A panic of the function passes through.
//
// Call may be used concurrently. It panics if args or fv do not fit f.
func (f *Func) Call(fv reflect.Value, ctx context.Context, args []reflect.Value) ([]reflect.Value, error) {
	fr := f.NewFrame()
	copy(fr.Args, args)
	out, err := fr.Call(fv, ctx)
	clear(fr.Args)
	f.frames.Put(fr)
	return out, err
}

// A Frame is the arguments of a call, in memory that other calls use again.
type Frame struct {
	Args []reflect.Value // one a [Func.Args]; to be set

	f      *Func
	ctx    context.Context
	in     []reflect.Value // ctx, if the function takes one, Args, and room for what a Reply is put in
	places []reflect.Value // see Place
}

// NewFrame returns a frame for one call.
func (f *Func) NewFrame() *Frame {
	fr, _ := f.frames.Get().(*Frame)
	if fr != nil {
		return fr
	}
	n := len(f.Args)
	all := make([]reflect.Value, 2*n+2)
	fr = &Frame{f: f, Args: all[1 : n+1], in: all[1 : n+1 : n+2], places: all[n+2:]}
	if f.Context {
		all[0] = reflect.ValueOf(&fr.ctx).Elem()
		fr.in = all[: n+1 : n+2]
	}
	for i := range f.Args {
		fr.places[i] = reflect.New(f.Args[i].Type)
	}
	return fr
}

// Place returns a pointer to a zero value of an argument's type, which is used again: what the
// pointer's Elem is may be set as the argument, and has another value once the frame is released.
func (fr *Frame) Place(i int) reflect.Value { return fr.places[i] }

// Release lets another call have the frame. Nobody may look at its arguments any more.
func (fr *Frame) Release() {
	clear(fr.Args)
	fr.ctx = nil // of a function that has panicked
	for _, p := range fr.places {
		p.Elem().SetZero()
	}
	fr.f.frames.Put(fr)
}

// Call is [Func.Call] with the frame's arguments.
func (fr *Frame) Call(fv reflect.Value, ctx context.Context) ([]reflect.Value, error) {
	f, in, reply := fr.f, fr.in, reflect.Value{}
	if f.Reply {
		reply = newReply(f.Results[0].Type)
		in = append(in, reply)
	}
	fr.ctx = ctx
	var out []reflect.Value
	if f.Variadic {
		out = fv.CallSlice(in)
	} else {
		out = fv.Call(in)
	}
	fr.ctx = nil
	if f.Reply {
		in[len(in)-1] = reflect.Value{}
	}
	var err error
	if f.Error {
		last := len(out) - 1
		if !out[last].IsNil() {
			err, _ = out[last].Interface().(error)
		}
		out = out[:last]
	}
	if f.Reply {
		out = append(out, reply.Elem())
	}
	return out, err
}

// newReply returns a pointer to a t, with maps and slices made as net/rpc makes them.
func newReply(t reflect.Type) reflect.Value {
	p := reflect.New(t)
	switch t.Kind() {
	case reflect.Map:
		p.Elem().Set(reflect.MakeMap(t))
	case reflect.Slice:
		p.Elem().Set(reflect.MakeSlice(t, 0, 0))
	}
	return p
}

// withError returns the text of function type t with an error added to its results.
func withError(t reflect.Type) string {
	var in, out []string
	for p := range t.Ins() {
		in = append(in, nameOf(p))
	}
	if t.IsVariadic() {
		last := len(in) - 1
		in[last] = "..." + strings.TrimPrefix(in[last], "[]")
	}
	for r := range t.Outs() {
		out = append(out, nameOf(r))
	}
	text := "func(" + strings.Join(in, ", ") + ") "
	if len(out) == 0 {
		return text + "error"
	}
	return text + "(" + strings.Join(append(out, "error"), ", ") + ")"
}

// nameOf returns t as a Go programmer would write it: type arguments without their import paths,
// any for the empty interface.
func nameOf(t reflect.Type) string {
	if t == nil {
		return "nil"
	}
	text := strings.ReplaceAll(t.String(), "interface {}", "any")
	if !strings.ContainsAny(text, "/,") {
		return text
	}
	var b strings.Builder
	for text != "" {
		end := strings.IndexAny(text, "[](){}*,; ")
		if end < 0 {
			end = len(text)
		}
		word := text[:end]
		b.WriteString(word[strings.LastIndexByte(word, '/')+1:])
		if text = text[end:]; text != "" {
			b.WriteByte(text[0])
			if text[0] == ',' && !strings.HasPrefix(text, ", ") {
				b.WriteByte(' ')
			}
			text = text[1:]
		}
	}
	return b.String()
}
