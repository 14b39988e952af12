package jsonrpc

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/yonder-rpc/yonder/net/rpc"
)

// Dial connects to a server.
func Dial(network, address string) (*rpc.Client, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return NewClient(conn), nil
}

// NewClient returns a client of the server at the other end of a connection. It owns conn
// from then on.
func NewClient(conn io.ReadWriteCloser) *rpc.Client {
	return rpc.NewClientWithCodec(NewClientCodec(conn))
}

// NewClientCodec returns a client's end of a connection.
func NewClientCodec(conn io.ReadWriteCloser) rpc.ClientCodec {
	return Limits{}.NewClientCodec(conn)
}

// call is a request as a client sends it.
type call struct {
	Method string `json:"method"`
	Params [1]any `json:"params"`
	ID     uint64 `json:"id"`
}

// answer is an answer as a client reads it. A result of null counts as none.
type answer struct {
	ID     uint64           `json:"id"`
	Result *json.RawMessage `json:"result"`
	Error  any              `json:"error"`
}

type clientCodec struct {
	io.Closer
	dec    *decoder
	enc    *json.Encoder
	answer answer // the last one read

	mu      sync.Mutex        // guards methods
	methods map[uint64]string // of calls without an answer, which does not name it
}

func (c *clientCodec) WriteRequest(r *rpc.Request, param any) error {
	c.mu.Lock()
	c.methods[r.Seq] = r.ServiceMethod
	c.mu.Unlock()
	return c.enc.Encode(&call{r.ServiceMethod, [1]any{param}, r.Seq})
}

func (c *clientCodec) ReadResponseHeader(r *rpc.Response) error {
	c.answer = answer{}
	a := &c.answer
	if err := c.dec.Decode(a); err != nil {
		return err
	}
	c.mu.Lock()
	r.ServiceMethod = c.methods[a.ID]
	delete(c.methods, a.ID)
	c.mu.Unlock()
	r.Seq, r.Error = a.ID, ""
	if a.Error == nil && a.Result != nil {
		return nil
	}
	text, ok := a.Error.(string)
	if !ok {
		return fmt.Errorf("invalid error %v", a.Error)
	}
	if text == "" {
		text = "unspecified error"
	}
	r.Error = text
	return nil
}

func (c *clientCodec) ReadResponseBody(into any) error {
	if into == nil {
		return nil
	}
	return json.Unmarshal(*c.answer.Result, into)
}
