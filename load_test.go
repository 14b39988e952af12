package yonder_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder"
)

var loadRounds = flag.Int("load", 6, "calls that each caller of TestLoad makes")

// An order is what a caller of TestLoad wants, and brings.
type order struct {
	ID   int
	Want int    // bytes
	How  string // "": answer; "wait": until the context has ended; "fail", "panic", "exit"
	Text string
	Body []byte
}

// A parcel is what it gets.
type parcel struct {
	ID   int
	Text string
	Body []byte
}

// filler returns n bytes by which those of one call can be told from another's.
func filler(id, n int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%08d", id), n/8+1)[:n]
}

func (o *order) fill(ctx context.Context) (parcel, error) {
	if o.Text != fmt.Sprint("order ", o.ID) || !bytes.Equal(o.Body, filler(o.ID, len(o.Body))) {
		return parcel{}, yonder.Errorf(yonder.DataLoss, "order %d has come with another's text or body", o.ID)
	}
	switch o.How {
	case "wait":
		<-ctx.Done()
		return parcel{}, ctx.Err()
	case "fail":
		return parcel{}, yonder.Errorf(yonder.NotFound, "order %d fails", o.ID)
	case "panic":
		panic(o.ID)
	case "exit":
		runtime.Goexit()
	}
	return parcel{o.ID, fmt.Sprint("parcel ", o.ID), filler(o.ID, o.Want)}, nil
}

// loadSizes are around those at which messages take another way: read apart, written apart, in
// parts, without a copy.
var loadSizes = []int{0, 1, 100, 16<<10 - 60, 16 << 10, 64<<10 - 60, 64 << 10, 68<<10 - 70, 68 << 10, 200 << 10, 512<<10 + 1, 1200 << 10}

// TestLoad has many callers at work on one connection, with messages of all sizes, and limits
// that end calls wherever they are. Each answer must be that of its call.
func TestLoad(t *testing.T) {
	runIn(t, func(t *testing.T, m mode) {
		for _, limit := range []int{3, 1000} {
			t.Run(fmt.Sprint("MaxCalls ", limit), func(t *testing.T) { testLoad(t, m, limit) })
		}
	}, overTCP)
}

func testLoad(t *testing.T, m mode, limit int) {
	quiet := slog.New(slog.DiscardHandler) // of panics
	srv := yonder.Server{Logger: quiet, Limits: yonder.Limits{MaxCalls: limit}}
	yonder.Handle(&srv, "handled", func(ctx context.Context, o order) (parcel, error) { return o.fill(ctx) })
	srv.Register("registered", func(ctx context.Context, o order) ([]byte, error) {
		p, err := o.fill(ctx)
		return p.Body, err
	})
	srv.Register("parcels", func(ctx context.Context, o order, n int) yonder.Stream[parcel] {
		return func(yield func(parcel, error) bool) {
			for range n {
				if p, err := o.fill(ctx); !yield(p, err) {
					return
				}
			}
		}
	})
	srv.Register("back", func(ctx context.Context, o order, f func(context.Context, order) (parcel, error)) (parcel, error) {
		return f(ctx, o)
	})
	c, err := m.dial(t, &yonder.Dialer{Timeout: 20 * time.Millisecond, Logger: quiet}, m.serve(t, &srv))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	handled := yonder.Remote[order, parcel](c, "handled")
	var registered func(context.Context, order) ([]byte, error)
	c.Bind("registered", &registered)
	var hasty func(order) ([]byte, error) // by Timeout
	c.Bind("registered", &hasty)
	var parcels func(context.Context, order, int) (yonder.Stream[parcel], error)
	c.Bind("parcels", &parcels)
	var back func(context.Context, order, func(context.Context, order) (parcel, error)) (parcel, error)
	c.Bind("back", &back)

	one := func(id int) error {
		size := func() int {
			n := len(loadSizes)
			if rand.N(4) > 0 {
				n = 3
			}
			return loadSizes[rand.N(n)]
		}
		o := order{ID: id, Want: size(), Text: fmt.Sprint("order ", id), Body: filler(id, size())}
		limited := true
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		switch rand.N(4) {
		case 0:
			ctx, cancel = context.WithTimeout(ctx, rand.N(10*time.Millisecond))
			defer cancel()
		case 1:
			time.AfterFunc(rand.N(5*time.Millisecond), cancel)
		default:
			limited = false
		}
		want := yonder.CodeOf(nil)
		switch rand.N(20) {
		case 0:
			o.How, want = "fail", yonder.NotFound
		case 1:
			o.How, want = "panic", yonder.Internal
		case 2:
			o.How, want = "exit", yonder.Internal
		case 3, 4, 5:
			if limited {
				o.How = "wait"
			}
		}
		var got parcel
		var err error
		switch way := rand.N(10); {
		case way < 4:
			got, err = handled(ctx, o)
		case way < 6:
			got.Body, err = registered(ctx, o)
			got.ID, got.Text = id, fmt.Sprint("parcel ", id)
		case way < 8:
			limited = true
			got.Body, err = hasty(o)
			got.ID, got.Text = id, fmt.Sprint("parcel ", id)
		case way == 8:
			if o.How == "exit" { // would end a goroutine of its stream's
				return nil
			}
			got, err = last(parcels(ctx, o, 3))
		default:
			got, err = back(ctx, o, func(ctx context.Context, o order) (parcel, error) { return o.fill(ctx) })
		}
		code := yonder.CodeOf(err)
		if limited && (code == yonder.DeadlineExceeded || code == yonder.Canceled) {
			return nil
		}
		if code != want || o.How == "fail" && !strings.Contains(err.Error(), fmt.Sprintf("order %d fails", id)) {
			return fmt.Errorf("call %d (%q, %d to %d bytes): %w", id, o.How, len(o.Body), o.Want, errors.Join(err, context.Cause(ctx)))
		}
		if err == nil && (got.ID != id || got.Text != fmt.Sprint("parcel ", id) || !bytes.Equal(got.Body, filler(id, o.Want))) {
			return fmt.Errorf("call %d has got %d: %q, with %d bytes, wants %d", id, got.ID, got.Text, len(got.Body), o.Want)
		}
		return nil
	}
	const callers = 256
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for round := range *loadRounds {
				if err := one(round*callers + caller); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if _, err := registered(t.Context(), order{Text: "order 0"}); err != nil {
		t.Error(err)
	}
}

// last returns the last value of a stream whose values are the same.
func last(seq yonder.Stream[parcel], err error) (p parcel, _ error) {
	if err != nil {
		return p, err
	}
	for one, err := range seq {
		if err != nil {
			return p, err
		}
		if p.Body != nil && !bytes.Equal(p.Body, one.Body) {
			return p, errors.New("the values of a stream are not the same")
		}
		p = one
	}
	return p, nil
}
