package jsonrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/yonder-rpc/yonder"
)

// An envelope is a request, a notification or a response, taken apart: what is written
// at each member that this package knows; nil: nothing. encoding/json would take ID
// and even ıd for id, and the last of two; a peer that does not would see another
// message than this one.
type envelope struct {
	version, id, method, params, result, error, meta, timeout []byte
	// twice is a member that is there more than once; "": none is.
	twice string
}

// open takes apart an object, which is known to be one.
func open(text []byte) envelope {
	var e envelope
	for name, value := range members(text) {
		name = name[1 : len(name)-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			name = []byte(unquote(name))
		}
		var to *[]byte
		switch string(name) {
		case "jsonrpc":
			to = &e.version
		case "id":
			to = &e.id
		case "method":
			to = &e.method
		case "params":
			to = &e.params
		case "result":
			to = &e.result
		case "error":
			to = &e.error
		case "meta":
			to = &e.meta
		case "timeout":
			to = &e.timeout
		default:
			continue
		}
		if *to != nil {
			e.twice = string(name)
		}
		*to = value
	}
	if e.twice == "id" {
		e.id = nil
	}
	return e
}

// unquote returns the string that is written as text, without the quotes.
func unquote(text []byte) string {
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text)
	}
	var s string
	quoted := append(append([]byte{'"'}, text...), '"')
	if json.Unmarshal(quoted, &s) != nil {
		return string(text)
	}
	return s
}

// stringOf returns the string that value is, and whether it is one.
func stringOf(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	return unquote(value[1 : len(value)-1]), true
}

// A request is a request or a notification, of either version.
type request struct {
	method string
	params []byte // an array or an object; nil: none
	id     []byte // as it was written
	legacy bool   // version 1.0
	note   bool   // a notification: it is not answered

	timeout time.Duration // 0: none
	meta    yonder.Metadata
}

// read makes a request of an envelope. why says what is wrong with it; "": nothing.
func (r *request) read(e *envelope, limits *yonder.Limits) (why string) {
	r.id, r.legacy = e.id, e.version == nil
	if !r.legacy {
		if version, _ := stringOf(e.version); version != "2.0" {
			r.id = idOf(r.id)
			return `"jsonrpc" must be "2.0"`
		}
		if r.id != nil {
			if r.id = idOf(r.id); r.id == nil {
				return `"id" must be a string, a number or null`
			}
		}
	}
	var ok bool
	if r.method, ok = stringOf(e.method); !ok {
		if r.legacy {
			r.id = idOf(r.id)
		}
		r.legacy = false
		return `"method" must be a string`
	}
	r.note = r.id == nil && e.twice != "id" || r.legacy && r.id != nil && isNull(r.id)
	if r.legacy && r.id != nil && idOf(r.id) == nil { // any value will do, but an answer is one line
		var line bytes.Buffer
		if json.Compact(&line, r.id) != nil { // it is nested too deeply
			line.WriteString("null")
		}
		r.id = line.Bytes()
	}
	if e.twice != "" {
		return fmt.Sprintf("member %q is there twice", e.twice)
	}
	switch {
	case e.params == nil || isNull(e.params):
	case e.params[0] != '[' && e.params[0] != '{':
		return `"params" must be an array or an object`
	default:
		r.params = e.params
	}
	if e.timeout != nil && !isNull(e.timeout) {
		if r.timeout, ok = milliseconds(string(e.timeout)); !ok {
			return `"timeout" must be a number of milliseconds, more than 0`
		}
	}
	if e.meta != nil && !isNull(e.meta) {
		if len(e.meta) > 8*limits.MaxMetadata {
			return metaTooLarge
		}
		if json.Unmarshal(e.meta, &r.meta) != nil {
			return `"meta" must be an object of strings`
		}
		if sizeOf(r.meta) > limits.MaxMetadata {
			return metaTooLarge
		}
	}
	return ""
}

// metaTooLarge is what is wrong with a request that is one.
const metaTooLarge = "the metadata is too large"

// idOf returns an id if it is one that version 2.0 permits, and else nil.
func idOf(id []byte) []byte {
	if len(id) == 0 || id[0] == '{' || id[0] == '[' || id[0] == 't' || id[0] == 'f' {
		return nil
	}
	return id
}

func isNull(value []byte) bool { return value[0] == 'n' }

// milliseconds returns the time that is written as a number of milliseconds, and
// whether it is one that a call can have.
func milliseconds(text string) (time.Duration, bool) {
	ms, err := strconv.ParseFloat(text, 64)
	if err != nil || !(ms > 0) {
		return 0, false
	}
	return time.Duration(min(max(math.Round(ms*float64(time.Millisecond)), 1), math.MaxInt64/2)), true
}

// sizeOf returns what metadata takes, in bytes.
func sizeOf(m yonder.Metadata) int {
	n := 0
	for k, v := range m {
		n += len(k) + len(v)
	}
	return n
}

// wellFormed returns the message that text is, in a framing that says where it ends, or a
// [*textError].
func (s *scanner) wellFormed(text []byte) ([]byte, error) {
	if err := s.check(text); err != nil {
		return nil, &textError{err: err, framed: true}
	}
	return s.message(bytes.TrimSpace(text))
}

// message returns text, which has just been found to be a JSON text, if it is a message's,
// too, or a [*textError].
func (s *scanner) message(text []byte) ([]byte, error) {
	switch {
	case !utf8.Valid(text): // RFC 8259, section 8.1
		return nil, &textError{err: errUnicode, framed: true, text: text}
	case s.deep:
		return nil, &textError{err: errNesting, framed: true, text: text}
	}
	return text, nil
}

var errUnicode = errors.New("it is not UTF-8")
