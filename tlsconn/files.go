package tlsconn

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// loaded is what has been read of a [Config]'s files.
type loaded struct {
	own  *tls.Certificate // nil: there is none
	ca   *x509.CertPool   // nil: there is none
	text [3][]byte        // of the files, as they are, to see whether they have changed

	// sessions are a client's. What another certificate or other authorities began is not
	// resumed.
	sessions tls.ClientSessionCache
}

// caFile is the number of [Config.CA] in loaded.text.
const caFile = 2

// load returns what the files say, and reads them if that has not been done, or is due.
func (c *Config) load() (*loaded, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	every := c.Reload
	if every == 0 {
		every = 10 * time.Second
	}
	if c.loaded != nil && (every < 0 || time.Since(c.checked) < every) {
		return c.loaded, nil
	}
	l, err := c.read(c.loaded)
	c.checked = time.Now()
	switch {
	case err == nil:
		c.loaded = l
	case c.loaded == nil:
		return nil, err
	default: // it may be that only one of two files has been replaced yet
		logger := c.Logger
		if logger == nil {
			logger = slog.Default()
		}
		logger.Warn("yonder: certificates cannot be read again; the ones from before remain", "error", err)
	}
	return c.loaded, nil
}

// current is load when there is something loaded.
func (c *Config) current() *loaded {
	l, _ := c.load()
	return l
}

// read reads the files. It returns before if they have not changed since then.
func (c *Config) read(before *loaded) (*loaded, error) {
	l := &loaded{own: c.Own, sessions: tls.NewLRUClientSessionCache(0)}
	for i, name := range []string{c.Certificate, c.Key, c.CA} {
		if name == "" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("tlsconn: %w", err)
		}
		l.text[i] = text
	}
	if before != nil && bytes.Equal(before.text[0], l.text[0]) && bytes.Equal(before.text[1], l.text[1]) && bytes.Equal(before.text[2], l.text[2]) {
		return before, nil
	}
	if c.Certificate != "" || c.Key != "" {
		if c.Own != nil {
			return nil, fmt.Errorf("tlsconn: there are two certificates, Own and that of %s; have one", c.Certificate)
		}
		own, err := tls.X509KeyPair(l.text[0], l.text[1])
		if err != nil {
			return nil, fmt.Errorf("tlsconn: certificate %q with key %q: %w", c.Certificate, c.Key, err)
		}
		l.own = &own
	}
	if c.CA != "" {
		l.ca = x509.NewCertPool()
		if !l.ca.AppendCertsFromPEM(l.text[caFile]) {
			return nil, fmt.Errorf("tlsconn: %s has no certificate in PEM", c.CA)
		}
	}
	return l, nil
}
