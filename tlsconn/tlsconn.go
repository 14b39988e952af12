// Package tlsconn has yonder's connections over TLS, with certificates from both ends where that
// is wanted.
//
//	config := tlsconn.Config{Certificate: "server.pem", Key: "server.key"}
//	l, err := config.Listen("127.0.0.1:1234")
//	err = srv.Serve(l)                                             // all its protocols
//
//	client, err := tlsconn.Dial(ctx, "tls://127.0.0.1:1234")       // or, with more to set:
//	config := tlsconn.Config{CA: "ca.pem"}
//	d := yonder.Dialer{NetDial: config.NetDial}
//	client, err := d.Dial(ctx, "tls://127.0.0.1:1234")
//
// It is TLS 1.3. Sessions are resumed, so that to connect again costs no signature. Files are read
// again when they have changed. With a CA on a server, clients must have a certificate of it:
// [Identify] makes the names in it an identity for package auth.
//
// Peers that negotiate an application protocol get "yonder" or "http/1.1", and others, of which
// most of these protocols' clients are, none: the first bytes decide, as without TLS.
package tlsconn

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/auth"
	"github.com/yonder-rpc/yonder/internal/layers"
)

// A Config says what one end shows and what it believes. A client's zero value believes the
// system's authorities; a server needs a certificate. It must not be changed, or copied, once it is
// used.
type Config struct {
	// Certificate and Key are files in PEM: the chain, own certificate first, and its private
	// key. Empty: none, or that of Own.
	Certificate, Key string
	// Own is a certificate that is in memory. Nil: there is none, or that of the files.
	Own *tls.Certificate
	// CA is a file in PEM of the authorities that the other end's certificate must come from. On a
	// server it makes clients' certificates a must. Empty: on a client the system's authorities,
	// on a server none, and clients need no certificate.
	CA string
	// Optional lets clients without a certificate come, to be known in another way or to be
	// nobody. It counts on a server with a CA.
	Optional bool
	// Pins are what [Pin] says of the certificates that a client believes, instead of asking any
	// authority. Nil: authorities are asked.
	Pins []string
	// ServerName is the name in the server's certificate. Empty: that of the address that is
	// dialed. It counts on a client.
	ServerName string
	// Reload is the time after which a new connection has the files read again, to see whether
	// they have changed. Zero means 10 seconds; less than zero, they are read once.
	Reload time.Duration
	// Logger is told when files cannot be read again: what was read before remains. Nil:
	// slog.Default().
	Logger *slog.Logger

	mu      sync.Mutex // guards what follows
	loaded  *loaded
	checked time.Time
}

// protocols are those that an end offers, by ALPN. HTTP/2 is none that yonder speaks.
var (
	serverProtocols = []string{"yonder", "http/1.1"}
	clientProtocols = []string{"yonder"}
)

// Server returns the configuration of servers. The error says which file is at fault.
func (c *Config) Server() (*tls.Config, error) {
	l, err := c.load()
	if err != nil {
		return nil, err
	}
	if l.own == nil {
		return nil, errors.New("tlsconn: a server needs a certificate: set Certificate and Key, or Own")
	}
	base := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: serverProtocols}
	base.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current().own, nil }
	// The configuration of each connection has the keys of base for resuming sessions.
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		l := c.current()
		own := &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: serverProtocols,
			Certificates: []tls.Certificate{*l.own},
		}
		if l.ca == nil {
			return own, nil
		}
		own.ClientCAs, own.ClientAuth = l.ca, tls.RequireAndVerifyClientCert
		if c.Optional {
			own.ClientAuth = tls.VerifyClientCertIfGiven
		}
		// A session is resumed while the authorities are those that it began with: else its
		// client shows its certificate again.
		mark := sha256.Sum256(l.text[caFile])
		own.WrapSession = func(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
			s.Extra = append(s.Extra, mark[:])
			return base.EncryptTicket(cs, s)
		}
		own.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
			s, err := base.DecryptTicket(ticket, cs)
			if err != nil || s == nil || !slices.ContainsFunc(s.Extra, func(b []byte) bool { return bytes.Equal(b, mark[:]) }) {
				return nil, err
			}
			return s, nil
		}
		return own, nil
	}
	return base, nil
}

// Client returns the configuration of a client that dials a host, whose name counts if
// ServerName is empty. It is for one connection, or a few: it does not change when the files do.
func (c *Config) Client(host string) (*tls.Config, error) {
	l, err := c.load()
	if err != nil {
		return nil, err
	}
	t := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: clientProtocols, ClientSessionCache: l.sessions,
		RootCAs: l.ca, ServerName: c.ServerName,
	}
	if t.ServerName == "" {
		t.ServerName = host
	}
	if l.own != nil {
		own := l.own
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
	}
	if c.Pins != nil {
		t.InsecureSkipVerify = true // VerifyConnection does
		t.VerifyConnection = func(s tls.ConnectionState) error { return pinned(s, c.Pins) }
	}
	return t, nil
}

// Pin returns what tells a certificate's key from any other, in the form that curl's --pinnedpubkey
// has: "sha256//" and the SHA-256 of its public key in base64.
func Pin(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "sha256//" + base64.StdEncoding.EncodeToString(sum[:])
}

func pinned(s tls.ConnectionState, pins []string) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("tlsconn: the server has no certificate")
	}
	have := Pin(s.PeerCertificates[0])
	if !slices.ContainsFunc(pins, func(p string) bool { return subtle.ConstantTimeCompare([]byte(p), []byte(have)) == 1 }) {
		return fmt.Errorf("tlsconn: the server's certificate has the pin %s, which is not one of those that are believed", have)
	}
	return nil
}

// Listen listens on an address, as [yonder.Listen] does, for [yonder.Server.Serve]. Of "tls://" it
// takes the scheme.
func (c *Config) Listen(address string) (net.Listener, error) {
	if rest, ok := strings.CutPrefix(address, "tls://"); ok {
		address = "tcp://" + rest
	}
	t, err := c.Server()
	if err != nil {
		return nil, err
	}
	l, err := yonder.Listen(address)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(l, t), nil
}

// NetDial makes a connection: over TLS if the network is "tls", and else as a net.Dialer does. It is
// for [yonder.Dialer.NetDial], and addresses like "tls://host:port".
func (c *Config) NetDial(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tls" {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("tlsconn: address %q: %w; use tls://host:port", address, err)
	}
	t, err := c.Client(host)
	if err != nil {
		return nil, err
	}
	conn, err := (&tls.Dialer{Config: t}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, explain(err)
	}
	return conn, nil
}

// explain says what to do about a handshake that failed.
func explain(err error) error {
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Errorf("tlsconn: the server does not speak TLS: %w; dial it by tcp://", e)
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("tlsconn: %w; set CA, or Pins, if the certificate is not of an authority that the system believes", e)
	}
	return err
}

// NetDial is that of a Config's zero value.
func NetDial(ctx context.Context, network, address string) (net.Conn, error) {
	return new(Config).NetDial(ctx, network, address)
}

// Dial returns a client of the server at "tls://host:port", whose certificate must be of an
// authority that the system believes. An address of a scheme that yonder.Dial knows is as good.
func Dial(ctx context.Context, address string) (*yonder.Client, error) {
	d := yonder.Dialer{NetDial: new(Config).NetDial}
	return d.Dial(ctx, address)
}

// State returns what is known of the TLS connection that a call came over, its peer's certificates
// for example. conn is [yonder.CallInfo.Conn]. It is nil if there is no TLS.
func State(conn any) *tls.ConnectionState {
	c, ok := layers.Find[interface{ ConnectionState() tls.ConnectionState }](conn)
	if !ok {
		return nil
	}
	state := c.ConnectionState()
	return &state
}

// Fingerprint tells the ends of connections apart by the certificates that they have shown and
// proven to have the key of, for [yonder.Resumption.Identity]. It is "" without TLS and "tls:"
// without a certificate.
func Fingerprint(conn any) string {
	s := State(conn)
	switch {
	case s == nil:
		return ""
	case len(s.PeerCertificates) == 0:
		return "tls:"
	}
	return "tls:" + string(s.PeerCertificates[0].Raw)
}

// Identify is an [auth.Source]: who calls has the names that are in the certificate that it has shown
// and proven to have the key of, if that comes from an authority of the server's: "uri:...",
// "dns:...", "email:...", "ip:..." and, of its subject, "cn:...". The Detail is a
// *tls.ConnectionState.
func Identify(_ context.Context, info yonder.CallInfo) (*auth.Identity, error) {
	s := State(info.Conn)
	if s == nil || len(s.VerifiedChains) == 0 || len(s.PeerCertificates) == 0 {
		return nil, nil
	}
	cert := s.PeerCertificates[0]
	var names []string
	for _, uri := range cert.URIs {
		names = append(names, "uri:"+uri.String())
	}
	for _, name := range cert.DNSNames {
		names = append(names, "dns:"+name)
	}
	for _, address := range cert.EmailAddresses {
		names = append(names, "email:"+address)
	}
	for _, ip := range cert.IPAddresses {
		names = append(names, "ip:"+ip.String())
	}
	if cn := cert.Subject.CommonName; cn != "" {
		names = append(names, "cn:"+cn)
	}
	if len(names) == 0 {
		names = []string{"subject:" + cert.Subject.String()}
	}
	return &auth.Identity{Names: names, Detail: s}, nil
}
