/*
Package jsonrpc is a drop-in for the standard library's net/rpc/jsonrpc: JSON-RPC 1.0 over a
stream, for package rpc. Its API and its bytes are the standard package's, and stock clients
and servers are peers in both directions. To move a program, change the import paths of
net/rpc and net/rpc/jsonrpc together.

A reply that JSON cannot encode, such as an infinite number, is an error of its call; the standard
package's server does not answer, and its client waits for ever.

The wire has no room for what package rpc adds to its own: contexts end calls at the
caller's end only, and neither deadlines nor metadata nor codes cross. A message has 64 MiB at
most; the standard package has no limit, and [Limits] can have another.
*/
package jsonrpc

import (
	"encoding/json"
	"errors"
	"io"
	"sync"

	"github.com/yonder-rpc/yonder/net/rpc"
)

// ServeConn has [rpc.DefaultServer] serve a connection until the client hangs up.
func ServeConn(conn io.ReadWriteCloser) { rpc.ServeCodec(NewServerCodec(conn)) }

// NewServerCodec returns a server's end of a connection.
func NewServerCodec(conn io.ReadWriteCloser) rpc.ServerCodec {
	return Limits{}.NewServerCodec(conn)
}

// request is a request as a server reads it.
type request struct {
	Method string           `json:"method"`
	Params *json.RawMessage `json:"params"`
	ID     *json.RawMessage `json:"id"`
}

// response is an answer as a server sends it.
type response struct {
	ID     *json.RawMessage `json:"id"`
	Result any              `json:"result"`
	Error  any              `json:"error"`
}

type serverCodec struct {
	io.Closer
	dec     *decoder
	out     *output
	enc     *json.Encoder // to out
	request request       // the last one read

	mu  sync.Mutex // guards what follows
	seq uint64
	ids map[uint64]*json.RawMessage // of requests without an answer, by Seq: any JSON value may be one
}

func (c *serverCodec) ReadRequestHeader(r *rpc.Request) error {
	c.request = request{}
	if err := c.dec.Decode(&c.request); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	c.ids[c.seq] = c.request.ID
	r.ServiceMethod, r.Seq = c.request.Method, c.seq
	return nil
}

var errMissingParams = errors.New("jsonrpc: request body missing params")

func (c *serverCodec) ReadRequestBody(into any) error {
	switch {
	case into == nil:
		return nil
	case c.request.Params == nil:
		return errMissingParams
	}
	return json.Unmarshal(*c.request.Params, &[1]any{into})
}

var null = json.RawMessage("null")

// WriteResponse implements [rpc.ServerCodec]. A result that JSON cannot encode is answered by an
// error, for else the caller would wait for ever.
func (c *serverCodec) WriteResponse(r *rpc.Response, result any) error {
	c.mu.Lock()
	id, ok := c.ids[r.Seq]
	delete(c.ids, r.Seq)
	c.mu.Unlock()
	if !ok {
		return errors.New("invalid sequence number in response")
	}
	if id == nil {
		id = &null
	}
	a := response{ID: id, Result: result}
	if r.Error != "" {
		a.Result, a.Error = nil, r.Error
	}
	c.out.begun = false
	err := c.enc.Encode(a)
	if err != nil && !c.out.begun {
		a.Result, a.Error = nil, err.Error()
		err = c.enc.Encode(a)
	}
	return err
}

// output is where answers are written.
type output struct {
	io.Writer
	begun bool // something of the answer may have been written
}

func (o *output) Write(p []byte) (int, error) {
	o.begun = true
	return o.Writer.Write(p)
}
