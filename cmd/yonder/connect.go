package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/yonder-rpc/yonder"
)

// connect connects to a server and asks it what it has.
func connect(ctx context.Context, address string, codec yonder.Codec, s *security) (*yonder.Client, []yonder.ProcedureInfo, error) {
	client, err := dial(ctx, address, codec, s)
	if err != nil {
		return nil, nil, err
	}
	procs, err := client.Procedures(ctx)
	if err != nil {
		client.Close()
		if silent := unanswered(ctx, client, address); silent != nil {
			return nil, nil, silent
		}
		return nil, nil, explain(ctx, address, err)
	}
	return client, procs, nil
}

// builtins are the procedures that servers have without listing them.
func builtins() []yonder.ProcedureInfo {
	var srv yonder.Server
	srv.Add(yonder.Procedure{
		Name: "health", Func: func() error { return nil },
		Doc: "yonder.health returns nothing if the server wants calls, and an error that says why not otherwise.",
	})
	srv.Add(yonder.Procedure{
		Name: "procedures", Func: func() []yonder.ProcedureInfo { return nil },
		Doc: "yonder.procedures lists the procedures that are registered.",
	})
	list := srv.Procedures()
	for i := range list {
		list[i].Name = "yonder." + list[i].Name
	}
	return list
}

// dial connects to a server.
func dial(ctx context.Context, address string, codec yonder.Codec, s *security) (*yonder.Client, error) {
	const forms = "use host:port, such as 127.0.0.1:1234, tls://host:port or unix:///path"
	scheme, host, ok := strings.Cut(address, "://")
	if !ok {
		scheme, host = "tcp", address
	}
	_, port, err := net.SplitHostPort(host)
	switch {
	case scheme == "unix" && host == "", (scheme == "tcp" || scheme == "tls") && (err != nil || port == ""):
		return nil, usageError{fmt.Sprintf("%q is not an address: %s", address, forms), ""}
	case scheme != "tcp" && scheme != "tls" && scheme != "unix":
		return nil, usageError{fmt.Sprintf("address %q: unknown scheme %q; %s", address, scheme, forms), ""}
	}
	d, err := s.dialer(codec)
	if err != nil {
		return nil, err
	}
	client, err := d.Dial(ctx, address)
	if err != nil {
		return nil, explain(ctx, address, err)
	}
	return client, nil
}

// explain says what to do about an error of connect.
func explain(ctx context.Context, address string, err error) error {
	dns, noHost := errors.AsType[*net.DNSError](err)
	unknown, isUnknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, isPlain := errors.AsType[tls.RecordHeaderError](err)
	isPlain = isPlain || strings.HasPrefix(address, "tls://") && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET))
	switch {
	case ctx.Err() != nil:
		return yonder.Errorf(yonder.CodeOf(ctx.Err()), "connecting to %s: %w", address, context.Cause(ctx))
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return yonder.Errorf(yonder.Unavailable, "nobody listens on %s: start the server, or check the address", address)
	case noHost && dns.IsNotFound:
		return yonder.Errorf(yonder.Unavailable, "there is no host %q: check the address", dns.Name)
	case isUnknown:
		return yonder.Errorf(yonder.Unavailable, "the certificate of %s: %v; give the file of its authority by --ca, or its key's pin by --pin", address, unknown)
	case isPlain:
		return yonder.Errorf(yonder.Unavailable, "what listens on %s does not seem to speak TLS: leave out tls://, if that is right", address)
	case yonder.CodeOf(err) == yonder.InvalidArgument && !yonder.IsRemote(err):
		return usageError{strings.TrimPrefix(err.Error(), "yonder: "), ""}
	case yonder.CodeOf(err) == yonder.Unimplemented && yonder.IsRemote(err):
		return yonder.Errorf(yonder.Unimplemented, "the server at %s does not tell which procedures it has, so this tool cannot call them", address)
	case errors.Is(err, yonder.ErrConnectionLost):
		return yonder.Errorf(yonder.Unavailable, "%s\n\t%w", notYonder(address), err)
	}
	return err
}

// unanswered is the error of a call whose context has ended before the server said anything, and
// else nil. The client itself waits longer than that may take.
func unanswered(ctx context.Context, client *yonder.Client, address string) error {
	if ctx.Err() == nil || client.Stats().Connections["yonder"].BytesRead > 0 {
		return nil
	}
	return yonder.Errorf(yonder.CodeOf(ctx.Err()), "%s\n\t%w", notYonder(address), context.Cause(ctx))
}

func notYonder(address string) string {
	return fmt.Sprintf("what listens on %s does not answer as a yonder server does: check the address", address)
}
