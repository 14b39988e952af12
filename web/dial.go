package web

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/coder/websocket"

	"github.com/yonder-rpc/yonder"
)

// Dial returns a client of the server at "ws://host/yonder", or wss, over yonder's own protocol.
// It connects again as any client does. An address of a scheme that yonder.Dial knows is as good.
func Dial(ctx context.Context, address string) (*yonder.Client, error) {
	d := yonder.Dialer{NetDial: NetDial}
	return d.Dial(ctx, address)
}

// NetDial is the NetDial of a Dialer's zero value. It is for [yonder.Dialer.NetDial], where there
// is more to set than Dial does.
func NetDial(ctx context.Context, network, address string) (net.Conn, error) {
	return new(Dialer).NetDial(ctx, network, address)
}

// A Dialer makes connections over WebSockets. Its zero value is ready to use.
type Dialer struct {
	// Client makes the request. It has the TLS configuration, the proxy and the cookies. Nil:
	// http.DefaultClient.
	Client *http.Client
	// Header is sent with the request, such as an Authorization. Nil: nothing more.
	Header http.Header
}

// NetDial makes a connection, of which every Write is a binary message. The network is "ws" or
// "wss", and the address what follows "://" in a URL. Other networks are a net.Dialer's.
func (d *Dialer) NetDial(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "ws" && network != "wss" {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	ws, resp, err := websocket.Dial(ctx, network+"://"+address, &websocket.DialOptions{HTTPClient: d.Client, HTTPHeader: d.Header})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			text, _ := io.ReadAll(resp.Body) // a part of it is there
			return nil, fmt.Errorf("%s://%s is no WebSocket: %s: %s", network, address, resp.Status, strings.TrimSpace(string(text)))
		}
		return nil, err
	}
	return newSocket(ws, nil), nil
}
