package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The codes that this protocol gives of its own accord; all of them are package
// yonder's.
const (
	CodeCanceled    = 1
	CodeDeadline    = 4
	CodeExhausted   = 8
	CodeInternal    = 13
	CodeUnavailable = 14
)

// Unrun is a name that the outermost error of an answer has if the call has not been run, nor will
// be. See SPEC.md, "Errors".
const Unrun = "yonder.unrun"

// An Error is an error on the wire: a tree, as errors.Join and fmt.Errorf with
// several %w make it. See SPEC.md, "Errors".
type Error struct {
	Code    uint8
	Message string
	Names   []string // the listed sentinels that this error is, by their stable names
	Type    string   // the stable name of its type, if that is listed
	Value   []byte   // with Type: the error encoded by the connection's codec
	Details []byte   // encoded by the connection's codec; empty: none
	Causes  []*Error // what it wraps
}

const (
	// MaxErrorNodes is the number of errors that one error record may hold.
	MaxErrorNodes = 256
	// MaxErrorDepth is how deeply they may be nested.
	MaxErrorDepth = 64
	// MaxErrorNames is the number of names that each of them may have.
	MaxErrorNames = 32
)

// AppendError appends an error record. Nodes and names beyond the limits must
// have been left out by the caller.
func AppendError(dst []byte, e *Error) []byte {
	dst = append(dst, e.Code)
	dst = AppendBlob(dst, e.Message)
	dst = binary.AppendUvarint(dst, uint64(len(e.Names)))
	for _, n := range e.Names {
		dst = AppendBlob(dst, n)
	}
	dst = AppendBlob(dst, e.Type)
	if e.Type != "" {
		dst = AppendBlob(dst, e.Value)
	}
	dst = AppendBlob(dst, e.Details)
	dst = binary.AppendUvarint(dst, uint64(len(e.Causes)))
	for _, c := range e.Causes {
		dst = AppendError(dst, c)
	}
	return dst
}

// ParseError reads an error record that fills b. Its byte slices alias b.
func ParseError(b []byte) (*Error, error) {
	nodes := MaxErrorNodes
	e, rest, err := parseError(b, &nodes, MaxErrorDepth)
	if err == nil && len(rest) > 0 {
		err = errors.New("bytes after the error")
	}
	if err != nil {
		return nil, fmt.Errorf("error record: %w", err)
	}
	return e, nil
}

func parseError(b []byte, nodes *int, depth int) (*Error, []byte, error) {
	if *nodes--; *nodes < 0 || depth == 0 {
		return nil, nil, fmt.Errorf("more than %d errors, or more than %d levels", MaxErrorNodes, MaxErrorDepth)
	}
	if len(b) == 0 {
		return nil, nil, ErrShort
	}
	e := &Error{Code: b[0]}
	message, b, err := blob(b[1:])
	if err != nil {
		return nil, nil, err
	}
	e.Message = string(message)
	n, b, err := uvarint(b)
	if err != nil {
		return nil, nil, err
	}
	if n > MaxErrorNames {
		return nil, nil, fmt.Errorf("%d names are more than %d", n, MaxErrorNames)
	}
	for range n {
		var name []byte
		if name, b, err = blob(b); err != nil {
			return nil, nil, err
		}
		e.Names = append(e.Names, string(name))
	}
	typ, b, err := blob(b)
	if err != nil {
		return nil, nil, err
	}
	if e.Type = string(typ); e.Type != "" {
		if e.Value, b, err = blob(b); err != nil {
			return nil, nil, err
		}
	}
	details, b, err := blob(b)
	if err != nil {
		return nil, nil, err
	}
	if len(details) > 0 {
		e.Details = details
	}
	n, b, err = uvarint(b)
	if err != nil {
		return nil, nil, err
	}
	if n > MaxErrorNodes {
		return nil, nil, fmt.Errorf("%d causes are more than %d", n, MaxErrorNodes)
	}
	for range n {
		var c *Error
		if c, b, err = parseError(b, nodes, depth-1); err != nil {
			return nil, nil, err
		}
		e.Causes = append(e.Causes, c)
	}
	return e, b, nil
}
