package jsonrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// The codes that JSON-RPC 2.0 reserves.
const (
	ParseError     = -32700
	InvalidRequest = -32600
	MethodNotFound = -32601
	InvalidParams  = -32602
	InternalError  = -32603
)

// ServerError is the first of the codes that are left to servers: a [yonder.Code] that
// none of the reserved codes stands for is ServerError minus its number, from -32001
// for Canceled to -32016 for Unauthenticated, and Unknown is ServerError itself.
const ServerError = -32000

// RequestCancelled is the Language Server Protocol's code of a call that its caller has
// cancelled by $/cancelRequest.
const RequestCancelled = -32800

// An Error is an error as it is written. A handler returns one, as it is or wrapped, to
// choose its own code; the error of a call that was answered with an error wraps one,
// which tells what was written.
type Error struct {
	Code    int
	Message string
	// Data is any value that can be encoded; nil: none. In what was received, it is a
	// json.RawMessage.
	Data any
}

func (e *Error) Error() string {
	if e.Message != "" {
		return e.Message
	}
	return "error " + strconv.Itoa(e.Code)
}

// As has errors.As find a [yonder.Error] in e, so that the code means something over
// other protocols too.
func (e *Error) As(target any) bool {
	if into, ok := target.(**yonder.Error); ok {
		*into = &yonder.Error{Code: codeOf(e.Code), Message: e.Error()}
		return true
	}
	return false
}

// numberOf returns the number of a code.
func numberOf(c yonder.Code) int {
	switch c {
	case yonder.Unimplemented:
		return MethodNotFound
	case yonder.InvalidArgument:
		return InvalidParams
	case yonder.Internal:
		return InternalError
	case yonder.Unknown, 0:
		return ServerError
	}
	return ServerError - int(c)
}

// codeOf returns the code of a number that JSON-RPC or the Language Server Protocol reserves.
// What a server means by another only it knows.
func codeOf(n int) yonder.Code {
	switch n {
	case MethodNotFound:
		return yonder.Unimplemented
	case InvalidParams, InvalidRequest, ParseError:
		return yonder.InvalidArgument
	case InternalError:
		return yonder.Internal
	case RequestCancelled:
		return yonder.Canceled
	}
	return yonder.Unknown
}

// errorData is what the data of an error tells a yonder: the tree of what it wraps, as
// SPEC.md's error record does.
type errorData struct {
	Code    string          `json:"code,omitempty"`    // the yonder code's name
	Message string          `json:"message,omitempty"` // of what is wrapped; the outermost is the error's own
	Details json.RawMessage `json:"details,omitempty"`
	Is      []string        `json:"is,omitempty"`   // listed sentinels, by name
	Type    string          `json:"type,omitempty"` // a listed type, by name
	Value   json.RawMessage `json:"value,omitempty"`
	Causes  []*errorData    `json:"causes,omitempty"`
}

// dataOf returns what there is to tell of an error; nil: nothing that its number does
// not say.
func dataOf(e *wire.Error) *errorData {
	d := treeOf(e)
	d.Message = ""
	code := yonder.Code(e.Code)
	if d.Code = ""; d.tells() || codeOf(numberOf(code)) != code {
		d.Code = code.String()
		return d
	}
	return nil
}

func treeOf(e *wire.Error) *errorData {
	d := &errorData{Message: e.Message, Is: e.Names, Type: e.Type}
	if e.Code != 0 {
		d.Code = yonder.Code(e.Code).String()
	}
	if len(e.Details) > 0 {
		d.Details = e.Details
	}
	if e.Type != "" {
		d.Value = e.Value
	}
	for _, c := range e.Causes {
		if cause := treeOf(c); cause.tells() {
			d.Causes = append(d.Causes, cause)
		}
	}
	return d
}

// tells reports whether a cause says more than a text, which is in that of the error
// that wraps it.
func (d *errorData) tells() bool {
	return d.Code != "" || d.Details != nil || d.Is != nil || d.Type != "" || d.Causes != nil
}

// recordOf is treeOf the other way round.
func recordOf(d *errorData, nodes *int, depth int) *wire.Error {
	*nodes--
	e := &wire.Error{
		Message: d.Message, Type: d.Type, Value: d.Value, Details: d.Details,
		Names: d.Is[:min(len(d.Is), wire.MaxErrorNames)],
	}
	if code, ok := codeNamed(d.Code); ok {
		e.Code = uint8(code)
	}
	for _, c := range d.Causes {
		if c != nil && *nodes > 0 && depth > 1 {
			e.Causes = append(e.Causes, recordOf(c, nodes, depth-1))
		}
	}
	return e
}

func codeNamed(name string) (yonder.Code, bool) {
	var c yonder.Code
	if name == "" || c.UnmarshalText([]byte(name)) != nil || c == 0 {
		return 0, false
	}
	return c, true
}

// fault appends an error's object.
func (b *outBuffer) fault(s *yonder.Server, err error) {
	cancelled, byRequest := err.(requestCancelled)
	if byRequest {
		err = cancelled.error
	}
	if e := chosen(err); e != nil {
		b.object(e.Code, e.Error(), e.Data)
		return
	}
	if err == errMethod {
		b.object(MethodNotFound, err.Error(), nil)
		return
	}
	record, bad := wire.ParseError(s.EncodeError(err, yonder.JSON))
	if bad != nil { // it cannot be
		b.object(InternalError, bad.Error(), nil)
		return
	}
	var data any
	if d := dataOf(record); d != nil {
		data = d
	}
	number := numberOf(yonder.Code(record.Code))
	if byRequest && number == numberOf(yonder.Canceled) {
		number = RequestCancelled
	}
	b.object(number, record.Message, data)
}

// errCancelRequest is the cause of a context that $/cancelRequest has ended.
var errCancelRequest = fmt.Errorf("$/cancelRequest: %w", context.Canceled)

// requestCancelled is the error of a call that ended for that cause.
type requestCancelled struct{ error }

// ofCall returns a call's error, whose context is ctx, as it is to be written.
func ofCall(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || context.Cause(ctx) != errCancelRequest {
		return err
	}
	return requestCancelled{err}
}

// chosen returns the [*Error] that a handler's error is, or wraps. A panic of the error's own
// methods is not told here: [yonder.Server.EncodeError] makes an error of it, and logs it.
func chosen(err error) (e *Error) {
	defer func() {
		if recover() != nil {
			e = nil
		}
	}()
	nodes := wire.MaxErrorNodes
	return chosenIn(err, &nodes, wire.MaxErrorDepth)
}

// chosenIn is errors.AsType, which would look for ever in an error that wraps itself, for as
// much of an error as crosses a connection.
func chosenIn(err error, nodes *int, depth int) (e *Error) {
	if *nodes--; err == nil || *nodes < 0 || depth == 0 {
		return nil
	}
	if e, ok := err.(*Error); ok {
		return e
	}
	if as, ok := err.(interface{ As(any) bool }); ok && as.As(&e) {
		return e
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		return chosenIn(u.Unwrap(), nodes, depth-1)
	case interface{ Unwrap() []error }:
		for _, cause := range u.Unwrap() {
			if e := chosenIn(cause, nodes, depth-1); e != nil {
				return e
			}
		}
	}
	return nil
}

// textOf returns an error's text, for version 1.0. A panic is treated as chosen treats it.
func textOf(s *yonder.Server, err error) (text string) {
	defer func() {
		if recover() != nil {
			text = "internal"
			if record, bad := wire.ParseError(s.EncodeError(err, yonder.JSON)); bad == nil {
				text = record.Message
			}
		}
	}()
	return err.Error()
}

// errMethod is the error of a call that names no procedure.
var errMethod error = noMethod{}

type noMethod struct{}

// Error returns the specification's text.
func (noMethod) Error() string { return "Method not found" }

// object appends an error's object. Data that cannot be encoded is left out.
func (b *outBuffer) object(code int, message string, data any) {
	b.WriteString(`{"code":`)
	b.Write(strconv.AppendInt(b.AvailableBuffer(), int64(code), 10))
	b.WriteString(`,"message":`)
	b.text(message)
	if data != nil {
		end := b.Len()
		b.WriteString(`,"data":`)
		if b.value(data) != nil {
			b.Truncate(end)
		}
	}
	b.WriteByte('}')
}

// text appends a text, with what is not UTF-8 in it replaced.
func (b *outBuffer) text(s string) { b.value(strings.ToValidUTF8(s, "\uFFFD")) }

// decodeError returns the error that an answer's error describes. Version 1.0 has
// any value there, a string most often.
func decodeError(text []byte, procedure string, d *yonder.Dialer) error {
	var object struct {
		Code    json.Number     `json:"code"`
		Message string          `json:"message"`
		Data    json.RawMessage `json:"data"`
	}
	e := &Error{}
	record := &wire.Error{Code: uint8(yonder.Unknown)}
	message, isText := stringOf(text)
	switch {
	case isText:
		e.Code, e.Message = ServerError, message
	case json.Unmarshal(text, &object) != nil || object.Code == "":
		e.Code, e.Message = ServerError, string(text)
	default:
		n, _ := strconv.Atoi(string(object.Code))
		e.Code, e.Message = n, object.Message
		if e.Message == "" {
			e.Message = e.Error()
		}
		if object.Data != nil {
			e.Data = object.Data
		}
		record = recordOfForeign(e, object.Data)
	}
	record.Message = e.Message
	if e.Code == MethodNotFound && e.Message == errMethod.Error() {
		record.Message = "yonder: call " + strconv.Quote(procedure) + ": " + e.Message
	}
	err := d.DecodeError(wire.AppendError(nil, record), yonder.JSON)
	if known, ok := err.(*yonder.Error); ok {
		if known.Err == nil {
			known.Err = e
		} else {
			known.Err = errors.Join(known.Err, e)
		}
	}
	return err
}

// recordOfForeign returns what an error's data tells, or what its number does if its
// server is not a yonder.
func recordOfForeign(e *Error, data json.RawMessage) *wire.Error {
	nodes := wire.MaxErrorNodes
	var tree errorData
	if len(data) > 0 && data[0] == '{' && json.Unmarshal(data, &tree) == nil {
		if _, ok := codeNamed(tree.Code); ok {
			return recordOf(&tree, &nodes, wire.MaxErrorDepth)
		}
	}
	return &wire.Error{Code: uint8(codeOf(e.Code)), Details: data}
}
