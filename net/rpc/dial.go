package rpc

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// A Dialer makes clients. Its zero value does what the package's functions do. Its fields
// must not be changed once it is used.
type Dialer struct {
	// NetDial makes the connection; nil: a net.Dialer does. A *tls.Dialer's DialContext fits.
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)
	// MaxMessage is the largest message accepted, in bytes: a header, a reply, or a type's
	// definition. It is compared before memory is taken. Zero means gob's own limit: 8 GiB,
	// or 1 GiB on 32-bit machines. A larger reply fails its call with
	// [yonder.ResourceExhausted]; a larger header or definition ends the connection.
	MaxMessage int
}

// Dial connects to a server.
func Dial(network, address string) (*Client, error) {
	return new(Dialer).Dial(context.Background(), network, address)
}

// DialHTTP connects to a server behind HTTP, at [DefaultRPCPath].
func DialHTTP(network, address string) (*Client, error) {
	return DialHTTPPath(network, address, DefaultRPCPath)
}

// DialHTTPPath connects to a server behind HTTP.
func DialHTTPPath(network, address, path string) (*Client, error) {
	return new(Dialer).DialHTTP(context.Background(), network, address, path)
}

// NewClient returns a client of the server at the other end of a connection. It owns conn
// from then on.
func (d *Dialer) NewClient(conn io.ReadWriteCloser) *Client {
	return NewClientWithCodec(newGobClientCodec(conn, d.MaxMessage))
}

// Dial connects to a server. ctx bounds only that.
func (d *Dialer) Dial(ctx context.Context, network, address string) (*Client, error) {
	conn, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return d.NewClient(conn), nil
}

func (d *Dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if d.NetDial != nil {
		return d.NetDial(ctx, network, address)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// DialHTTP connects to a server behind HTTP, at a path. ctx bounds only that.
func (d *Dialer) DialHTTP(ctx context.Context, network, address, path string) (*Client, error) {
	conn, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if err := connect(ctx, conn, path); err != nil {
		conn.Close()
		return nil, &net.OpError{Op: "dial-http", Net: network + " " + address, Err: err}
	}
	return d.NewClient(conn), nil
}

// connect asks an HTTP server for a connection to path.
func connect(ctx context.Context, conn net.Conn, path string) error {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	io.WriteString(conn, "CONNECT "+path+" HTTP/1.0\n\n")
	// The server says nothing more unasked, so the reader has taken nothing that is gob's.
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodConnect})
	switch {
	case !stop():
		return ctx.Err()
	case err != nil:
		return err
	case resp.Status != connected:
		return errors.New("unexpected HTTP response: " + resp.Status)
	}
	return nil
}
