package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"

	"github.com/yonder-rpc/yonder"
)

// connect connects to a server and asks it what it has.
func connect(ctx context.Context, address string, codec yonder.Codec) (*yonder.Client, []yonder.ProcedureInfo, error) {
	host, ok := strings.CutPrefix(address, "tcp://")
	if _, port, err := net.SplitHostPort(host); (err != nil || port == "") && (ok || !strings.Contains(address, "://")) {
		return nil, nil, usageError{fmt.Sprintf("%q is not an address: use host:port, such as 127.0.0.1:1234, or unix:///path", address), ""}
	}
	d := yonder.Dialer{Codec: codec, Logger: slog.New(slog.DiscardHandler)}
	client, err := d.Dial(ctx, address)
	if err != nil {
		return nil, nil, explain(ctx, address, err)
	}
	procs, err := client.Procedures(ctx)
	if err != nil {
		client.Close()
		return nil, nil, explain(ctx, address, err)
	}
	return client, procs, nil
}

// explain says what to do about an error of connect.
func explain(ctx context.Context, address string, err error) error {
	dns, noHost := errors.AsType[*net.DNSError](err)
	switch {
	case ctx.Err() != nil:
		return yonder.Errorf(yonder.CodeOf(ctx.Err()), "connecting to %s: %w", address, context.Cause(ctx))
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return yonder.Errorf(yonder.Unavailable, "nobody listens on %s: start the server, or check the address", address)
	case noHost && dns.IsNotFound:
		return yonder.Errorf(yonder.Unavailable, "there is no host %q: check the address", dns.Name)
	case yonder.CodeOf(err) == yonder.InvalidArgument && !yonder.IsRemote(err):
		return usageError{strings.TrimPrefix(err.Error(), "yonder: "), ""}
	case yonder.CodeOf(err) == yonder.Unimplemented && yonder.IsRemote(err):
		return yonder.Errorf(yonder.Unimplemented, "the server at %s does not tell which procedures it has, so this tool cannot call them", address)
	case errors.Is(err, yonder.ErrConnectionLost):
		return yonder.Errorf(yonder.Unavailable, "what listens on %s does not answer as a yonder server does: check the address\n\t%w", address, err)
	}
	return err
}
