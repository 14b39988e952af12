package jsonrpc

import (
	"time"

	"github.com/yonder-rpc/yonder"
)

const protocolName = "jsonrpc"

// A Config is how JSON-RPC is served. Its zero value is what [Protocol] and [Handler]
// use. The Server's own Limits hold besides.
type Config struct {
	// MaxBatch is the number of requests that a batch may have. Zero means 1,000.
	MaxBatch int
	// BatchTimeout is how long a batch may take: what is not answered by then is an error. It
	// is also how long a notification over HTTP may, which no end of a connection ends: then
	// its context does. Zero means a minute; less than zero, for ever.
	BatchTimeout time.Duration
	// BodyTimeout is how long the body of an HTTP request may take to arrive. Zero means 30
	// seconds; less than zero, for ever.
	BodyTimeout time.Duration
	// Origins are those whose pages may call, by the text of their Origin header, such as
	// "https://example.org", besides the pages of the server's own host; "*": any. They
	// are told so as CORS wants it. Nil: no others, and CORS is not spoken.
	Origins []string
	// Hosts are the names, besides localhost and addresses, by which a server may be called
	// that listens on a loopback address; "*": any. A page whose name has been made to
	// resolve to the loopback address would otherwise count as the server's own. Nil: none,
	// which a reverse proxy on the same machine may have to change.
	Hosts []string
}

func (c *Config) withDefaults() Config {
	d := *c
	if d.MaxBatch <= 0 {
		d.MaxBatch = 1000
	}
	if d.BatchTimeout == 0 {
		d.BatchTimeout = time.Minute
	}
	if d.BodyTimeout == 0 {
		d.BodyTimeout = 30 * time.Second
	}
	return d
}

// Protocol is JSON-RPC over a connection, for [yonder.Server.Protocols].
var Protocol yonder.Protocol = new(Config).Protocol()
