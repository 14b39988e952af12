package redial_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yonder-rpc/yonder/internal/redial"
)

type conn struct{ lost, closed atomic.Bool }

func (c *conn) Lost() bool   { return c.lost.Load() }
func (c *conn) Close() error { c.closed.Store(true); return nil }

func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials []time.Time
		refused := errors.New("refused")
		fail := false
		l := redial.New(func(ctx context.Context) (*conn, error) {
			dials = append(dials, time.Now())
			if fail {
				return nil, refused
			}
			return new(conn), nil
		}, 0)
		first, err := l.Conn(t.Context())
		if again, _ := l.Conn(t.Context()); again != first || err != nil || len(dials) != 1 {
			t.Errorf("a second connection: %v", err)
		}
		start := time.Now()
		first.lost.Store(true)
		second, err := l.Conn(t.Context())
		if second == first || err != nil || time.Since(start) != 0 {
			t.Errorf("after a loss: %v after %v", err, time.Since(start))
		}
		second.lost.Store(true)
		fail = true
		dials = nil
		for range 20 {
			if _, err := l.Conn(t.Context()); err != refused {
				t.Error(err)
			}
		}
		last := time.Duration(0)
		for i := range len(dials) - 1 {
			pause := dials[i+1].Sub(dials[i])
			if most := min(20*time.Millisecond<<i, 2*time.Second); pause < most/2 || pause > most {
				t.Errorf("pause %d is %v", i, pause)
			}
			last = pause
		}
		if last < time.Second {
			t.Errorf("the last pause is %v", last)
		}
		// Who gives up does not end the attempt of the others.
		fail = false
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := l.Conn(ctx); err != context.DeadlineExceeded {
			t.Error(err)
		}
		third, err := l.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		<-l.Done()
		if _, err := l.Conn(t.Context()); err != redial.ErrClosed || !third.closed.Load() || !l.Closed() {
			t.Errorf("after Close: %v", err)
		}
	})
}

// Close ends an attempt, and does not keep what it has made nevertheless.
func TestCloseDuringDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(conn)
		l := redial.New(func(ctx context.Context) (*conn, error) { <-ctx.Done(); return c, nil }, time.Hour)
		failed := make(chan error)
		go func() { _, err := l.Conn(t.Context()); failed <- err }()
		synctest.Wait()
		l.Close()
		if err := <-failed; err != redial.ErrClosed || !c.closed.Load() {
			t.Errorf("%v, closed: %t", err, c.closed.Load())
		}
	})
}

// An attempt has its time.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := redial.New(func(ctx context.Context) (*conn, error) { <-ctx.Done(); return nil, ctx.Err() }, 0)
		defer l.Close()
		start := time.Now()
		if _, err := l.Conn(t.Context()); err != context.DeadlineExceeded || time.Since(start) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}
