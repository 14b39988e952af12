//go:build unix

package jsonrpc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder"
)

// To cancel a call costs the same however many there are.
func TestCancelAmongMany(t *testing.T) {
	noLeaks(t)
	srv := new(yonder.Server)
	srv.Register("hang", func(ctx context.Context) { <-ctx.Done() })
	address := serve(t, srv)
	cost := func(among int) time.Duration {
		p := dialPeer(t, address)
		defer p.conn.Close()
		var calls strings.Builder
		for i := range among {
			fmt.Fprintf(&calls, `{"jsonrpc":"2.0","method":"hang","id":%d}`, i)
		}
		p.send(calls.String())
		check := func(id string) {
			p.send(`{"jsonrpc":"2.0","method":"rpc.cancel","params":{"id":"nobody"},"id":` + id + `}`)
			p.want(`{"jsonrpc":"2.0","result":false,"id":` + id + `}`)
		}
		check("-1")
		least := time.Hour
		for range 3 {
			before := cpuTime()
			p.send(strings.Repeat(`{"jsonrpc":"2.0","method":"rpc.cancel","params":{"id":"nobody"}}`, 1000))
			check("-2")
			least = min(least, cpuTime()-before)
		}
		return least
	}
	few, many := cost(10), cost(16_000)
	t.Logf("1,000 cancellations take %v among 10 calls, %v among 16,000", few, many)
	if many > 5*few {
		t.Error("the time grows with the calls")
	}
}
