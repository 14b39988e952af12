package rpc_test

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/yonder-rpc/yonder/net/rpc"
)

// Pair is an argument.
type Pair struct{ A, B int }

// Math is a service that the standard package takes too.
type Math struct{}

func (Math) Add(args *Pair, sum *int) error {
	*sum = args.A + args.B
	return nil
}

func (Math) Div(args Pair, quotient *int) error {
	if args.B == 0 {
		return errors.New("divide by zero")
	}
	*quotient = args.A / args.B
	return nil
}

func (Math) Echo(arg []byte, reply *[]byte) error {
	*reply = arg
	return nil
}

func (Math) Count(words map[string][]int, n *int) error {
	for _, list := range words {
		*n += len(list)
	}
	return nil
}

// Box holds what gob cannot encode unless it has been told of the type.
type Box struct{ Value any }

type unheardOf struct{ X int }

func (Math) Bad(_ int, reply *Box) error {
	reply.Value = unheardOf{1}
	return nil
}

func (Math) Silent(_ int, _ *int) error { return errors.New("") }

// serve serves Math and other services on a port until the test ends.
func serve(tb testing.TB, s *rpc.Server, services ...any) string {
	tb.Helper()
	for _, service := range append(services, Math{}) {
		if err := s.Register(service); err != nil {
			tb.Fatal(err)
		}
	}
	l := listen(tb)
	accepted := make(chan struct{})
	go func() { // ends when Close closes the listener
		defer close(accepted)
		s.Accept(l)
	}()
	tb.Cleanup(func() {
		s.Close()
		<-accepted
	})
	return l.Addr().String()
}

func dial(tb testing.TB, address string) *rpc.Client {
	tb.Helper()
	c, err := rpc.Dial("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

// noLeaks fails the test if goroutines are left after its cleanups.
func noLeaks(tb testing.TB) {
	before := goleak.IgnoreCurrent()
	tb.Cleanup(func() { goleak.VerifyNone(tb, before) })
}
