package yonder

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/yonder-rpc/yonder/internal/fn"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// An Error is an error with a [Code]. A handler returns one, as it is or wrapped, to
// give its caller more than a text; the error of a bound function is one, unless an
// interceptor has returned another.
//
// What an error wraps crosses a connection too: errors.Is finds the sentinels, and
// errors.As the types, that both ends list in their Errors field. These need no listing:
// context.Canceled and DeadlineExceeded; io.EOF, ErrUnexpectedEOF and ErrClosedPipe;
// fs.ErrInvalid, ErrPermission, ErrExist, ErrNotExist and ErrClosed; net.ErrClosed;
// errors.ErrUnsupported.
type Error struct {
	// Code is what kind of failure it is. Zero counts as [Unknown].
	Code Code
	// Message is the text. If it is empty, the text is that of Err, or of the code.
	Message string
	// Details is any value that can be encoded, for programs; nil: none. On the
	// caller's side it is a plain value: use [DetailsAs] to have it as a type.
	Details any
	// Err is what the error wraps; nil: nothing.
	Err error

	remote  bool
	is      []error // sentinels that the error was on the other side
	details []byte  // as they came
	codec   Codec   // of details
	unrun   bool    // the call has not run: see MayHaveRun
}

// Errorf returns an [Error] with a text made as fmt.Errorf makes it, %w included.
func Errorf(code Code, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	e := &Error{Code: code, Message: err.Error()}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		e.Err = u.Unwrap()
	case interface{ Unwrap() []error }:
		e.Err = err
	}
	return e
}

func (e *Error) Error() string {
	switch {
	case e.Message != "":
		return e.Message
	case e.Err != nil:
		return e.Err.Error()
	}
	return cmp.Or(e.Code, Unknown).String()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether the error was target on the other side of the connection.
func (e *Error) Is(target error) bool { return isAny(e.is, target) }

// IsRemote reports whether the other side said so: whether err, or one that it
// wraps, came over a connection from a procedure or from the peer's yonder. If not,
// this side inferred the failure, as when the connection is lost.
//
// It asks the first of them that has a method Remote() bool, as an [Error] has.
func IsRemote(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Remote() bool
	}](err)
	return ok && e.Remote()
}

// Remote reports whether the other side said so: see [IsRemote].
func (e *Error) Remote() bool { return e.remote }

// FromPeer returns e as an error that the other side has reported, for packages with
// clients of their own.
func FromPeer(e Error) *Error {
	e.remote = true
	return &e
}

// DetailsAs returns the details of the first [Error] that err is or wraps as a T,
// and whether it has any that fit.
func DetailsAs[T any](err error) (T, bool) {
	var v T
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return v, false
	}
	if d, ok := e.Details.(T); ok {
		return d, true
	}
	details, codec := e.details, e.codec
	if len(details) == 0 { // it is of this process
		details, codec = e.encodeDetails(CBOR), CBOR
	}
	if len(details) == 0 {
		return v, false
	}
	_, err = codec.Decode(details, &v)
	return v, err == nil
}

// RetryInfo is the Details of an [Error] of a call that has had no effect, since whoever was to run
// it is too busy: it may be made again, whatever it does, but not before some time has passed. Such
// an error's code is [ResourceExhausted], as a rule. Over HTTP, JSON-RPC says it by the header
// Retry-After, too. See SPEC.md, "Errors".
type RetryInfo struct {
	// AfterMS is the time, in milliseconds. Zero: at once.
	AfterMS int64 `json:"retryAfterMs"`
}

// RetryLater returns the error of a call that has had no effect and may be made again after some
// time: a [ResourceExhausted] whose Details are a [RetryInfo].
func RetryLater(after time.Duration, message string) error {
	ms := int64((max(after, 0) + time.Millisecond - 1) / time.Millisecond)
	return &Error{Code: ResourceExhausted, Message: message, Details: RetryInfo{AfterMS: ms}}
}

// RetryAfter returns how long to wait before a call is made again that ended with err, and whether
// err has a [RetryInfo], which is to say that the call has had no effect. Who waits adds something
// at random, so that not all come back at once.
func RetryAfter(err error) (time.Duration, bool) {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Details == nil && len(e.details) == 0 {
		return 0, false
	}
	info, ok := e.Details.(RetryInfo)
	if !ok {
		v, fits := DetailsAs[struct { // to tell zero from nothing
			AfterMS *int64 `json:"retryAfterMs"`
		}](e)
		if !fits || v.AfterMS == nil {
			return 0, false
		}
		info.AfterMS = *v.AfterMS
	}
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(min(max(info.AfterMS, 0), most)) * time.Millisecond, true
}

// Errors that a bound function's error can be told by, with errors.Is, and that are
// the causes of a handler's context.
var (
	// ErrServerClosed is returned by Serve after Shutdown or Close, and is the cause of
	// the contexts that Close cancels.
	ErrServerClosed = errors.New("yonder: server closed")
	// ErrConnectionLost is wrapped by the error of a call whose connection was lost, and
	// is the cause of the contexts of the handlers it ran.
	ErrConnectionLost = errors.New("yonder: connection lost")
	// ErrClientClosed is wrapped by the error of a call on a closed client.
	ErrClientClosed = errors.New("yonder: client closed")
)

// remoteError is an error without a code that another wraps on the other side.
type remoteError struct {
	text  string
	is    []error
	wraps []error
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() []error { return e.wraps }

func (e *remoteError) Is(target error) bool { return isAny(e.is, target) }

func isAny(sentinels []error, target error) bool {
	for _, s := range sentinels {
		if s == target {
			return true
		}
	}
	return false
}

// builtinErrors are the sentinels that both ends know without listing them.
var builtinErrors = map[string]error{
	"context.Canceled":         context.Canceled,
	"context.DeadlineExceeded": context.DeadlineExceeded,
	"io.EOF":                   io.EOF,
	"io.ErrUnexpectedEOF":      io.ErrUnexpectedEOF,
	"io.ErrClosedPipe":         io.ErrClosedPipe,
	"fs.ErrInvalid":            fs.ErrInvalid,
	"fs.ErrPermission":         fs.ErrPermission,
	"fs.ErrExist":              fs.ErrExist,
	"fs.ErrNotExist":           fs.ErrNotExist,
	"fs.ErrClosed":             fs.ErrClosed,
	"net.ErrClosed":            net.ErrClosed,
	"errors.ErrUnsupported":    errors.ErrUnsupported,
}

// errorTable is what one end has listed.
type errorTable struct {
	sentinels map[string]error
	types     map[string]reflect.Type
	names     map[reflect.Type]string // of types
}

// newErrorTable returns the table of an Errors field. A zero value, which a nil
// pointer is, stands for its type; any other error is a sentinel.
func newErrorTable(listed map[string]error) *errorTable {
	t := &errorTable{sentinels: builtinErrors}
	if len(listed) == 0 {
		return t
	}
	t.sentinels = make(map[string]error, len(builtinErrors)+len(listed))
	for name, err := range builtinErrors {
		t.sentinels[name] = err
	}
	t.types = make(map[string]reflect.Type)
	t.names = make(map[reflect.Type]string)
	for name, err := range listed {
		if err == nil {
			panic(fmt.Sprintf("yonder: Errors: %q is nil; give a sentinel, or a nil pointer or zero value of an error type", name))
		}
		if strings.HasPrefix(name, "yonder.") {
			panic(fmt.Sprintf("yonder: Errors: %q: names that begin with \"yonder.\" are yonder's own; use another", name))
		}
		if v := reflect.ValueOf(err); v.IsZero() {
			t.types[name] = v.Type()
			t.names[v.Type()] = name
		} else {
			t.sentinels[name] = err
		}
	}
	return t
}

// record returns an error of a procedure's as it crosses the connection. A panic of the
// error's own methods is one of the procedure.
func (t *errorTable) record(logger *slog.Logger, procedure string, err error, codec Codec) (e *wire.Error) {
	defer func() {
		if r := recover(); r != nil {
			e = &wire.Error{Code: uint8(Internal), Message: panicked(logger, procedure, r).Error()}
		}
	}()
	nodes := wire.MaxErrorNodes
	e = t.node(err, codec, &nodes, wire.MaxErrorDepth)
	if e.Code != 0 {
		return e
	}
	if !bounded(err) {
		err = t.build(e, codec) // what crosses of it
	}
	e.Code = uint8(CodeOf(err))
	if first, ok := errors.AsType[*Error](err); ok {
		e.Details = first.encodeDetails(codec)
	}
	return e
}

// bounded reports whether all that err wraps crosses a connection. If not, it may wrap
// itself, and package errors would look for its end for ever.
func bounded(err error) bool {
	nodes := wire.MaxErrorNodes
	return within(err, &nodes, wire.MaxErrorDepth)
}

func within(err error, nodes *int, depth int) bool {
	if *nodes--; *nodes < 0 || depth == 0 {
		return false
	}
	var causes []error
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		causes = []error{u.Unwrap()}
	case interface{ Unwrap() []error }:
		causes = u.Unwrap()
	}
	for _, c := range causes {
		if c != nil && !within(c, nodes, depth-1) {
			return false
		}
	}
	return true
}

// node returns err and what it wraps, as far as nodes and depth allow.
func (t *errorTable) node(err error, codec Codec, nodes *int, depth int) *wire.Error {
	*nodes--
	n := &wire.Error{Message: err.Error()}
	if e, ok := err.(*Error); ok {
		n.Code = uint8(cmp.Or(e.Code, Unknown))
		n.Details = e.encodeDetails(codec)
	}
	is, _ := err.(interface{ Is(error) bool })
	comparable := reflect.TypeOf(err).Comparable()
	for name, s := range t.sentinels {
		if len(n.Names) < wire.MaxErrorNames && (comparable && err == s || is != nil && is.Is(s)) {
			n.Names = append(n.Names, name)
		}
	}
	if name, ok := t.names[reflect.TypeOf(err)]; ok {
		if value := encoded(codec, err); value != nil {
			n.Type, n.Value = name, value
		}
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		if c := u.Unwrap(); c != nil && *nodes > 0 && depth > 1 {
			n.Causes = append(n.Causes, t.node(c, codec, nodes, depth-1))
		}
	case interface{ Unwrap() []error }:
		for _, c := range u.Unwrap() {
			if c != nil && *nodes > 0 && depth > 1 {
				n.Causes = append(n.Causes, t.node(c, codec, nodes, depth-1))
			}
		}
	}
	return n
}

func (e *Error) encodeDetails(codec Codec) []byte {
	if e.Details == nil {
		return nil
	}
	return encoded(codec, e.Details)
}

// encoded returns a value that goes with an error, or nil if it cannot be encoded.
func encoded(codec Codec, v any) []byte {
	var buf bytes.Buffer
	if fn.Acyclic(reflect.ValueOf(v)) != nil || codec.Encode(&buf, v) != nil {
		return nil
	}
	return buf.Bytes()
}

// decode returns the error that a record describes.
func (t *errorTable) decode(record []byte, codec Codec) error {
	n, err := wire.ParseError(record)
	if err != nil {
		return Errorf(Internal, "yonder: the peer answered with an error that cannot be read: %w", err)
	}
	if n.Code == 0 {
		n.Code = uint8(Unknown)
	}
	e := t.build(n, codec)
	if slices.Contains(n.Names, wire.Unrun) {
		return unrun(e)
	}
	return e
}

func (t *errorTable) build(n *wire.Error, codec Codec) error {
	var is, wraps []error
	for _, name := range n.Names {
		if s, ok := t.sentinels[name]; ok {
			is = append(is, s)
		}
	}
	if typ, ok := t.types[n.Type]; ok {
		if err := decodeError(typ, n.Value, codec); err != nil {
			wraps = append(wraps, err)
		}
	}
	for _, c := range n.Causes {
		wraps = append(wraps, t.build(c, codec))
	}
	if n.Code == 0 {
		if len(is) == 1 && len(wraps) == 0 && is[0].Error() == n.Message {
			return is[0]
		}
		return &remoteError{text: n.Message, is: is, wraps: wraps}
	}
	e := &Error{Code: Code(n.Code), Message: n.Message, remote: true, is: is}
	if len(n.Details) > 0 {
		e.details, e.codec = n.Details, codec
		if _, err := codec.Decode(n.Details, &e.Details); err != nil {
			e.Details = nil
		}
	}
	switch len(wraps) {
	case 0:
	case 1:
		e.Err = wraps[0]
	default:
		e.Err = &remoteError{text: n.Message, wraps: wraps}
	}
	return e
}

// decodeError returns a listed error type's value, or nil if it cannot be read.
func decodeError(typ reflect.Type, value []byte, codec Codec) error {
	v := reflect.New(typ)
	if typ.Kind() == reflect.Pointer {
		v = reflect.New(typ.Elem())
	}
	if _, err := codec.Decode(value, v.Interface()); err != nil {
		return nil
	}
	if typ.Kind() != reflect.Pointer {
		v = v.Elem()
	}
	err, _ := v.Interface().(error)
	return err
}
