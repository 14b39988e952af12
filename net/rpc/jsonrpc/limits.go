package jsonrpc

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/yonder-rpc/yonder/net/rpc"
)

// Limits make codecs, as the package's functions do, that accept messages of other sizes. The
// zero value makes the same ones.
type Limits struct {
	// MaxMessage is the largest message accepted, in bytes. Zero means 64 MiB; less than zero,
	// any, as in the standard package. A larger one ends the connection. Memory is taken as
	// bytes arrive, and of a connection's read-ahead up to as much again.
	MaxMessage int
}

// NewServerCodec is the package's function with limits.
func (l Limits) NewServerCodec(conn io.ReadWriteCloser) rpc.ServerCodec {
	out := &output{Writer: conn}
	return &serverCodec{
		Closer: conn, dec: newDecoder(conn, l), out: out, enc: json.NewEncoder(out), ids: make(map[uint64]*json.RawMessage),
	}
}

// NewClientCodec is the package's function with limits.
func (l Limits) NewClientCodec(conn io.ReadWriteCloser) rpc.ClientCodec {
	return &clientCodec{
		Closer: conn, dec: newDecoder(conn, l), enc: json.NewEncoder(conn), methods: make(map[uint64]string),
	}
}

// decoder reads messages that are not too large.
type decoder struct {
	json *json.Decoder
	conn io.Reader
	most int // bytes of a message; less than zero: any number
	left int // what may still be read for the current one
}

func newDecoder(conn io.Reader, l Limits) *decoder {
	d := &decoder{conn: conn, most: l.MaxMessage}
	if d.most == 0 {
		d.most = 64 << 20
	}
	d.json = json.NewDecoder(d)
	return d
}

// Decode reads a message.
func (d *decoder) Decode(into any) error {
	d.left = d.most
	return d.json.Decode(into)
}

// Read implements [io.Reader] for the JSON decoder. What that has read ahead does not count.
func (d *decoder) Read(p []byte) (int, error) {
	if d.most < 0 {
		return d.conn.Read(p)
	}
	if d.left == 0 {
		return 0, fmt.Errorf("jsonrpc: a message is larger than the limit, %d bytes", d.most)
	}
	n, err := d.conn.Read(p[:min(len(p), d.left)])
	d.left -= n
	return n, err
}
