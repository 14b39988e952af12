package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/auth"
	"github.com/yonder-rpc/yonder/tlsconn"
)

// security is how a client shows who it is, and knows the server.
type security struct {
	ca, cert, key string
	pin           string
	tokenFile     string
}

// flags adds those of a client's commands.
func (s *security) flags(f *pflag.FlagSet) {
	f.StringVar(&s.ca, "ca", "", "believe a tls:// server with a certificate of the authorities in this `file`, in PEM (default: the system's)")
	f.StringVar(&s.pin, "pin", "", "believe a tls:// server with this `pin` of its key, sha256//..., and no other")
	f.StringVar(&s.cert, "cert", "", "show a tls:// server the certificate in this `file`, in PEM, of --key")
	f.StringVar(&s.key, "key", "", "`file` with the key of --cert, in PEM")
	f.StringVar(&s.tokenFile, "token-file", "", "send the bearer token in this `file` with calls (default: that in $YONDER_TOKEN)")
}

// dialer returns what makes connections. Its error is the command line's.
func (s *security) dialer(codec yonder.Codec) (*yonder.Dialer, error) {
	config := &tlsconn.Config{CA: s.ca, Certificate: s.cert, Key: s.key}
	if s.pin != "" {
		if !strings.HasPrefix(s.pin, "sha256//") {
			return nil, usageError{fmt.Sprintf("--pin %q: a pin is sha256// and the hash of a key in base64; a demo prints its own", s.pin), ""}
		}
		config.Pins = []string{s.pin}
	}
	if _, err := config.Client(""); err != nil {
		return nil, usageError{strings.TrimPrefix(err.Error(), "tlsconn: "), ""}
	}
	d := &yonder.Dialer{Codec: codec, Logger: slog.New(slog.DiscardHandler), NetDial: config.NetDial}
	token := os.Getenv("YONDER_TOKEN")
	if s.tokenFile != "" {
		text, err := os.ReadFile(s.tokenFile)
		if err != nil {
			return nil, usageError{fmt.Sprintf("--token-file: %v", err), ""}
		}
		if token = strings.TrimSpace(string(text)); token == "" {
			return nil, usageError{fmt.Sprintf("--token-file %s: there is no token in it", s.tokenFile), ""}
		}
	}
	if token != "" {
		d.Interceptors = []yonder.Interceptor{auth.Bearer(token)}
	}
	return d, nil
}

// certificateTime is how long a certificate of a demo's is valid.
const certificateTime = 30 * 24 * time.Hour

// newCertificate returns a certificate that signs itself, for the names of a server that listens on
// host and on this machine.
func newCertificate(host string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "yonder demo"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certificateTime),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true, // clients are to take it for its own authority
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if name, err := os.Hostname(); err == nil {
		template.DNSNames = append(template.DNSNames, name)
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = append(template.IPAddresses, ip)
	} else if host != "" {
		template.DNSNames = append(template.DNSNames, host)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// writeCertificate writes a certificate, without its key, to a file.
func writeCertificate(file string, cert *tls.Certificate) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Leaf.Raw}), 0o644)
}
