package rpc_test

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	stock "net/rpc"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/net/rpc"
)

// Ctx is a service whose methods take contexts.
type Ctx struct {
	began chan struct{} // receives when Wait has begun
	ended chan error    // receives why its context ended
}

func newCtx() *Ctx { return &Ctx{make(chan struct{}, 10), make(chan error, 10)} }

func (c *Ctx) Wait(ctx context.Context, _ int, _ *int) error {
	c.began <- struct{}{}
	<-ctx.Done()
	c.ended <- context.Cause(ctx)
	return ctx.Err()
}

func (c *Ctx) Left(ctx context.Context, _ int, left *time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok {
		*left = time.Until(deadline)
	}
	return nil
}

func (c *Ctx) Info(ctx context.Context, key string, reply *[]string) error {
	info, ok := yonder.InfoFrom(ctx)
	if !ok || info.Conn == nil {
		return fmt.Errorf("no info: %+v", info)
	}
	if m, _ := yonder.Outgoing(ctx); m != nil {
		return fmt.Errorf("the caller's metadata would go with this method's own calls: %v", m)
	}
	*reply = []string{info.Procedure, info.Protocol, info.Metadata[key]}
	yonder.SetReply(ctx, "seen", info.Metadata[key])
	return nil
}

// Fail fails in different ways.
type Fail struct{}

func (Fail) Coded(text string, _ *int) error { return yonder.Errorf(yonder.NotFound, "%s", text) }
func (Fail) Missing(_ int, _ *int) error     { return fmt.Errorf("opening: %w", fs.ErrNotExist) }
func (Fail) Panic(_ int, _ *int) error       { panic("no reason") }
func (Fail) Exit(_ int, _ *int) error        { runtime.Goexit(); return nil }

// pipe returns a client of s over a pipe in memory, for synctest bubbles.
func pipe(t *testing.T, s *rpc.Server, services ...any) *rpc.Client {
	t.Helper()
	for _, service := range append(services, Math{}) {
		if err := s.Register(service); err != nil {
			t.Fatal(err)
		}
	}
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.ServeConn(far)
	}()
	c := rpc.NewClient(near)
	t.Cleanup(func() {
		c.Close()
		<-served
	})
	return c
}

func TestCancel(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprintf("first=%v", first), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				service := newCtx()
				c := pipe(t, rpc.NewServer(), service)
				if !first { // the client has heard what the server understands
					ctx, cancel := context.WithCancel(t.Context())
					if err := c.CallContext(ctx, "Math.Add", Pair{}, new(int)); err != nil {
						t.Fatal(err)
					}
					cancel()
				}
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					<-service.began
					cancel()
				}()
				if err := c.CallContext(ctx, "Ctx.Wait", 1, new(int)); err != context.Canceled {
					t.Errorf("CallContext: %v; want context.Canceled", err)
				}
				if cause := <-service.ended; cause != context.Canceled {
					t.Errorf("the method's context ended with %v; want context.Canceled", cause)
				}
				mustAdd(t, c)
			})
		})
	}
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newCtx()
		c := pipe(t, rpc.NewServer(), service)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var left time.Duration
		if err := c.CallContext(ctx, "Ctx.Left", 1, &left); err != nil || left != time.Minute {
			t.Errorf("the method had %v, %v; want a minute", left, err)
		}
		if err := c.CallContext(t.Context(), "Ctx.Left", 1, &left); err != nil || left != 0 {
			t.Errorf("without a deadline the method had %v, %v", left, err)
		}
		if err := c.CallContext(ctx, "Ctx.Wait", 1, new(int)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("CallContext: %v; want context.DeadlineExceeded", err)
		}
		if cause := <-service.ended; cause != context.DeadlineExceeded {
			t.Errorf("the method's context ended with %v; want context.DeadlineExceeded", cause)
		}
		if err := c.CallContext(ctx, "Math.Add", Pair{}, new(int)); err != context.DeadlineExceeded {
			t.Errorf("a call after the deadline: %v; want context.DeadlineExceeded", err)
		}
		if err := c.CallContext(due{t.Context()}, "Math.Add", Pair{}, new(int)); err != context.DeadlineExceeded {
			t.Errorf("a call at the deadline: %v; want context.DeadlineExceeded", err)
		}
	})
}

// due is a context whose time is up, and whose timer has yet to go off.
type due struct{ context.Context }

func (due) Deadline() (time.Time, bool) { return time.Now(), true }

func TestGoContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newCtx()
		c := pipe(t, rpc.NewServer(), service)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan *rpc.Call, 2)
		var sum int
		wait := c.GoContext(ctx, "Ctx.Wait", 1, new(int), done)
		<-service.began
		add := c.GoContext(ctx, "Math.Add", Pair{1, 2}, &sum, done)
		if call := <-done; call != add || call.Error != nil || sum != 3 {
			t.Errorf("Add: %+v, %d; want 3", call, sum)
		}
		cancel()
		if call := <-done; call != wait || call.Error != context.Canceled {
			t.Errorf("Wait: %+v; want context.Canceled", call)
		}
		<-service.ended
		if call := <-c.GoContext(ctx, "Math.Add", Pair{}, &sum, nil).Done; call.Error != context.Canceled {
			t.Errorf("a call when the context has ended: %v; want context.Canceled", call.Error)
		}
	})
}

// TestContextOfLostConnection also closes the client while calls are in flight.
func TestContextOfLostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newCtx()
		c := pipe(t, rpc.NewServer(), service)
		plain := c.Go("Ctx.Wait", 1, new(int), nil)
		call := c.GoContext(t.Context(), "Ctx.Wait", 1, new(int), nil)
		<-service.began
		<-service.began
		c.Close()
		for range 2 {
			if cause := <-service.ended; cause != yonder.ErrConnectionLost {
				t.Errorf("the method's context ended with %v; want ErrConnectionLost", cause)
			}
		}
		if err := (<-plain.Done).Error; err == nil {
			t.Error("the plain call succeeded")
		}
		if err := (<-call.Done).Error; err == nil {
			t.Error("the call with a context succeeded")
		}
	})
}

// TestPeerThatDoesNotRead has a client whose writes block, which must not keep a caller.
func TestPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		c := rpc.NewClient(near)
		defer c.Close()
		for _, size := range []int{1, 2 << 20, 1} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := c.CallContext(ctx, "Math.Echo", make([]byte, size), new([]byte)); err != context.DeadlineExceeded {
				t.Errorf("%d bytes: %v; want context.DeadlineExceeded", size, err)
			}
			cancel()
		}
	})
}

// TestGoIsWritten has Go wait for the write that its call is in, which another's goes before, so
// that Close after it loses nothing. GoContext waits no longer than its context.
func TestGoIsWritten(t *testing.T) {
	for _, read := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			defer far.Close()
			c := rpc.NewClient(near)
			brief, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			started := make(chan *rpc.Call, 4)
			for range 3 {
				go func() { // ends when the call is written, or the client is closed
					started <- c.Go("Math.Add", Pair{1, 2}, new(int), nil)
				}()
			}
			synctest.Wait()
			go func() { // ends with the context, if not before
				started <- c.GoContext(brief, "Math.Add", Pair{1, 2}, new(int), nil)
			}()
			synctest.Wait()
			if n := len(started); n > 0 {
				t.Fatalf("%d calls of Go have returned, and nothing is written", n)
			}
			if !read {
				time.Sleep(time.Second)
				synctest.Wait()
				if n := len(started); n != 1 {
					t.Fatalf("%d calls of Go have returned, and one context has ended", n)
				}
				c.Close()
				for range 4 {
					call := <-started
					if <-call.Done; call.Error == nil {
						t.Error("a call that was not written has no error")
					}
				}
				return
			}
			arrived := make(chan int)
			go func() { // ends with the connection
				dec := gob.NewDecoder(far)
				n := 0
				for dec.Decode(new(rpc.Request)) == nil && dec.Decode(new(Pair)) == nil {
					n++
				}
				arrived <- n
			}()
			for range 4 {
				<-started
			}
			c.Close()
			if n := <-arrived; n != 4 {
				t.Errorf("%d of 4 calls have arrived", n)
			}
		})
	}
}

// TestReplyAfterLeaving must not write to a reply whose caller has left.
func TestReplyAfterLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := &Late{make(chan struct{})}
		c := pipe(t, rpc.NewServer(), service)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		reply := []int{1, 2, 3}
		if err := c.CallContext(ctx, "Late.Answer", 1, &reply); err != context.DeadlineExceeded {
			t.Errorf("CallContext: %v; want context.DeadlineExceeded", err)
		}
		close(service.release)
		synctest.Wait()
		if diff := cmp.Diff([]int{1, 2, 3}, reply); diff != "" {
			t.Errorf("the reply was changed:\n%s", diff)
		}
		if err := c.CallContext(t.Context(), "Late.Answer", 1, &reply); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int{9}, reply); diff != "" {
			t.Error(diff)
		}
	})
}

// Late is a service that answers when it is let.
type Late struct{ release chan struct{} }

func (l *Late) Answer(_ int, reply *[]int) error {
	<-l.release
	*reply = []int{9}
	return nil
}

func TestMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := pipe(t, rpc.NewServer(), newCtx())
		var answer yonder.Metadata
		ctx := yonder.WithReply(yonder.WithMetadata(context.Background(), "token", "x", "other", "y"), &answer)
		var got []string
		if err := c.CallContext(ctx, "Ctx.Info", "token", &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"Ctx.Info", "netrpc", "x"}, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(yonder.Metadata{"seen": "x"}, answer); diff != "" {
			t.Error(diff)
		}
		got = nil
		if err := c.Call("Ctx.Info", "token", &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"Ctx.Info", "netrpc", ""}, got); diff != "" {
			t.Errorf("a plain call: %s", diff)
		}
	})
}

func TestCodes(t *testing.T) {
	log.SetOutput(io.Discard) // the stacks of panics
	defer log.SetOutput(os.Stderr)
	synctest.Test(t, func(t *testing.T) {
		c := pipe(t, rpc.NewServer(), Fail{})
		for _, test := range []struct {
			method, text string
			plain, ctx   yonder.Code
		}{
			{"Fail.Coded", "gone", yonder.NotFound, yonder.NotFound},
			{"Fail.Missing", "opening: file does not exist", yonder.Unknown, yonder.NotFound},
			{"Fail.Panic", "rpc: Fail.Panic panicked", yonder.Internal, yonder.Internal},
			{"Fail.Exit", "rpc: Fail.Exit panicked", yonder.Internal, yonder.Internal},
			{"Fail.None", "rpc: can't find method Fail.None", yonder.Unknown, yonder.Unimplemented},
		} {
			var arg any = 1
			if test.method == "Fail.Coded" {
				arg = test.text
			}
			for _, how := range []struct {
				name string
				code yonder.Code
				err  error
			}{
				{"Call", test.plain, c.Call(test.method, arg, new(int))},
				{"CallContext", test.ctx, c.CallContext(t.Context(), test.method, arg, new(int))},
			} {
				if how.err == nil || how.err.Error() != test.text || yonder.CodeOf(how.err) != how.code {
					t.Errorf("%s %s: %v, %v; want %q, %v", how.name, test.method, how.err, yonder.CodeOf(how.err), test.text, how.code)
				}
				if _, ok := errors.AsType[rpc.ServerError](how.err); !ok {
					t.Errorf("%s %s: %T does not say that the server said so", how.name, test.method, how.err)
				}
			}
		}
	})
}

// TestContextsWithStockPeers is calls with all that a context can have, between this
// package and the standard one.
func TestContextsWithStockPeers(t *testing.T) {
	noLeaks(t)
	t.Run("stock server", func(t *testing.T) {
		block := &stockBlock{make(chan struct{}, 1), make(chan struct{})}
		s := stock.NewServer()
		s.Register(Math{})
		s.RegisterName("Block", block)
		near, far := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			s.ServeConn(far)
		}()
		c := rpc.NewClient(near)
		defer func() {
			c.Close()
			<-served
		}()
		ctx, cancel := context.WithTimeout(yonder.WithMetadata(t.Context(), "k", "v"), time.Hour)
		defer cancel()
		for range 3 { // both kinds of header, in turn
			mustAdd(t, c)
			var sum int
			if err := c.CallContext(ctx, "Math.Add", Pair{1, 2}, &sum); err != nil || sum != 3 {
				t.Fatalf("CallContext: %d, %v; want 3", sum, err)
			}
			if err := c.CallContext(ctx, "Math.Div", Pair{}, &sum); err != rpc.ServerError("divide by zero") {
				t.Fatalf("Div: %#v; want the ServerError", err)
			}
		}
		short, end := context.WithCancel(ctx)
		go func() {
			<-block.began
			end()
		}()
		if err := c.CallContext(short, "Block.Wait", 1, new(int)); err != context.Canceled {
			t.Errorf("CallContext: %v; want context.Canceled", err)
		}
		close(block.release)
		mustAdd(t, c)
	})
	t.Run("stock client", func(t *testing.T) {
		s := rpc.NewServer()
		s.Register(Math{})
		s.Register(newCtx())
		s.Register(Fail{})
		near, far := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			s.ServeConn(far)
		}()
		c := stock.NewClient(near)
		defer func() {
			c.Close()
			<-served
		}()
		for range 3 {
			mustAdd(t, c)
			if err := c.Call("Fail.Coded", "gone", new(int)); err != stock.ServerError("gone") {
				t.Fatalf("an error with a code: %#v; want the ServerError", err)
			}
			var left time.Duration
			if err := c.Call("Ctx.Left", 1, &left); err != nil || left != 0 {
				t.Fatalf("Left: %v, %v; want no deadline", left, err)
			}
			if err := c.Call("_goRPC_.Cancel", &struct{ Seq uint64 }{1}, new(bool)); err == nil || err.Error() != "rpc: can't find service _goRPC_.Cancel" {
				t.Fatalf("Cancel by a client that has not asked for it: %v", err)
			}
		}
	})
}

type stockBlock struct{ began, release chan struct{} }

// Wait waits.
func (b *stockBlock) Wait(_ int, _ *int) error {
	b.began <- struct{}{}
	<-b.release
	return nil
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := &Late{make(chan struct{})}
		s := rpc.NewServer()
		c := pipe(t, s, service)
		var reply []int
		call := c.Go("Late.Answer", 1, &reply, nil)
		synctest.Wait()
		down := make(chan error)
		go func() { down <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		if err := c.CallContext(t.Context(), "Math.Add", Pair{}, new(int)); yonder.CodeOf(err) != yonder.Unavailable {
			t.Errorf("a new call: %v; want Unavailable", err)
		}
		close(service.release)
		if err := (<-call.Done).Error; err != nil || len(reply) != 1 {
			t.Errorf("the call in flight: %v, %v; want an answer", reply, err)
		}
		if err := <-down; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := c.Call("Math.Add", Pair{}, new(int)); err == nil {
			t.Error("a call after Shutdown succeeded")
		}
	})
}

func TestShutdownGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service, stubborn := newCtx(), &Late{make(chan struct{})}
		s := rpc.NewServer()
		c := pipe(t, s, service, stubborn)
		wait := c.Go("Ctx.Wait", 1, new(int), nil)
		c.Go("Late.Answer", 1, new([]int), nil)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != context.DeadlineExceeded {
			t.Errorf("Shutdown: %v; want context.DeadlineExceeded", err)
		}
		if cause := <-service.ended; cause != yonder.ErrServerClosed {
			t.Errorf("the method's context ended with %v; want ErrServerClosed", cause)
		}
		if err := (<-wait.Done).Error; err == nil {
			t.Error("the call in flight succeeded")
		}
		close(stubborn.release)
	})
}

// TestShutdownOfListeners has two listeners, and a connection that says nothing.
func TestShutdownOfListeners(t *testing.T) {
	noLeaks(t)
	s := rpc.NewServer()
	c := dial(t, serve(t, s))
	mustAdd(t, c)
	other := listen(t)
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		s.Accept(other)
	}()
	silent, err := net.Dial("tcp", other.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-accepted
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the silent connection has been told something")
	}
	s.Accept(listen(t)) // returns at once
	near, far := net.Pipe()
	s.ServeConn(far)
	if _, err := near.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a connection after Shutdown: %v; want it closed", err)
	}
}

func TestMaxCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newCtx()
		c := pipe(t, &rpc.Server{MaxCalls: 2}, service)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 3 {
			c.GoContext(ctx, "Ctx.Wait", 1, new(int), nil)
		}
		synctest.Wait()
		if n := len(service.began); n != 2 {
			t.Errorf("%d calls have begun; want 2", n)
		}
		mustAdd(t, c) // when the first two have ended
		for range 2 {
			<-service.ended
		}
		synctest.Wait()
		if n := len(service.began); n != 2 {
			t.Errorf("%d calls have begun; want 2: nobody waits for the third", n)
		}
	})
}

// TestCancelWhileFull cancels calls while as many are in flight as may be.
func TestCancelWhileFull(t *testing.T) {
	type full struct {
		t       *testing.T
		service *Ctx
		c       *rpc.Client
		cancels []context.CancelFunc
		calls   []*rpc.Call
	}
	begun := func(f *full, want int) {
		f.t.Helper()
		synctest.Wait()
		if n := len(f.service.began); n != want {
			f.t.Errorf("%d calls have begun; want %d", n, want)
		}
	}
	call := func(f *full, method string, arg any) {
		ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
		f.t.Cleanup(cancel)
		f.cancels = append(f.cancels, cancel)
		f.calls = append(f.calls, f.c.GoContext(ctx, method, arg, nil, nil))
		synctest.Wait()
	}
	for name, test := range map[string]func(f *full, s *rpc.Server){
		"running": func(f *full, _ *rpc.Server) {
			f.cancels[1]()
			begun(f, 3)
			if cause := <-f.service.ended; cause != context.Canceled {
				f.t.Errorf("it ended with %v", cause)
			}
			f.cancels[0]()
			begun(f, 4)
		},
		"waiting": func(f *full, _ *rpc.Server) {
			f.cancels[2]()
			synctest.Wait()
			f.cancels[0]()
			begun(f, 3) // the last, and not the one before it
			f.cancels[1]()
			begun(f, 3)
			f.cancels[3]()
			synctest.Wait()
			if n := len(f.service.ended); n != 3 {
				f.t.Errorf("%d have ended; want 3", n)
			}
		},
		"more wait than may": func(f *full, _ *rpc.Server) {
			call(f, "Ctx.Wait", 4)
			f.cancels[0]()
			begun(f, 2) // it is behind what is not read
			time.Sleep(time.Minute)
		},
		"room after a waiting one is canceled": func(f *full, _ *rpc.Server) {
			f.cancels[3]()
			synctest.Wait()
			call(f, "Ctx.Wait", 4)
			f.cancels[0]()
			begun(f, 3)
		},
		"expired": func(f *full, _ *rpc.Server) {
			time.Sleep(time.Minute) // all of them
			begun(f, 2)
			mustAdd(f.t, f.c)
		},
		"shutdown": func(f *full, s *rpc.Server) {
			go s.Shutdown(f.t.Context())
			begun(f, 2)
			for i, call := range f.calls {
				select {
				case <-call.Done:
					if i < 2 || yonder.CodeOf(call.Error) != yonder.Unavailable {
						f.t.Errorf("call %d has ended with %v", i, call.Error)
					}
				default:
					if i >= 2 {
						f.t.Errorf("call %d still waits", i)
					}
				}
			}
			f.cancels[0]()
			f.cancels[1]()
			begun(f, 2)
		},
		"close": func(f *full, s *rpc.Server) {
			s.Close()
			begun(f, 2)
		},
		"connection lost": func(f *full, _ *rpc.Server) {
			f.c.Close()
			begun(f, 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &rpc.Server{MaxCalls: 2}
				service := newCtx()
				f := &full{t: t, service: service, c: pipe(t, s, service)}
				for i := range 4 {
					call(f, "Ctx.Wait", i)
				}
				begun(f, 2)
				test(f, s)
				for _, cancel := range f.cancels {
					cancel()
				}
			})
		})
	}
	t.Run("bytes", func(t *testing.T) {
		for _, size := range []int{4_000, 6_000} { // of which two may wait, or one
			synctest.Test(t, func(t *testing.T) {
				s := &rpc.Server{MaxCalls: 3, MaxMessage: 10_000}
				service := newCtx()
				f := &full{t: t, service: service, c: pipe(t, s, service)}
				for i := range 3 {
					call(f, "Ctx.Wait", i)
				}
				for range 2 {
					call(f, "Math.Echo", make([]byte, size))
				}
				f.cancels[0]()
				synctest.Wait()
				if reached := len(service.ended) == 1; reached != (size == 4_000) {
					t.Errorf("%d bytes: a cancellation behind them reached the method: %t", size, reached)
				}
				time.Sleep(time.Minute)
			})
		}
	})
}

// endless is an error that wraps itself.
type endless struct{}

func (endless) Error() string   { return "on and on" }
func (e endless) Unwrap() error { return e }

// Endless is a service whose errors keep package errors busy.
type Endless struct{}

func (Endless) Fail(_ int, _ *int) error { return endless{} }

// An error that wraps itself is its text, whoever asks for more.
func TestEndlessError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := pipe(t, rpc.NewServer(), Endless{})
		for _, ctx := range []context.Context{t.Context(), context.Background()} {
			if err := c.CallContext(ctx, "Endless.Fail", 1, new(int)); err == nil || err.Error() != "on and on" {
				t.Errorf("got %v", err)
			}
		}
		mustAdd(t, c)
	})
}

// Unsound is a service whose errors panic.
type Unsound struct{}

// Unwrap returns an error whose Unwrap panics, since it is nil.
func (Unsound) Unwrap(_ int, _ *int) error { return (*net.OpError)(nil) }

// As returns an error of which nobody can ask what it is.
func (Unsound) As(_ int, _ *int) error { return unsound{} }

// Text returns an error without a text.
func (Unsound) Text(_ int, _ *int) error { return (*fs.PathError)(nil) }

type unsound struct{}

func (unsound) Error() string { return "unsound" }
func (unsound) As(any) bool   { panic("as") }

// TestErrorThatPanics has an error be its text, if there is one, whatever else of it panics.
func TestErrorThatPanics(t *testing.T) {
	log.SetOutput(io.Discard) // the panics are logged
	defer log.SetOutput(os.Stderr)
	synctest.Test(t, func(t *testing.T) {
		c := pipe(t, rpc.NewServer(), Unsound{})
		for _, ctx := range []context.Context{t.Context(), context.Background()} {
			for method, want := range map[string]string{
				"Unsound.Unwrap": "<nil>", "Unsound.As": "unsound", "Unsound.Text": "rpc: Unsound.Text panicked",
			} {
				if err := c.CallContext(ctx, method, 1, new(int)); err == nil || err.Error() != want {
					t.Errorf("%s: %v; want %s", method, err, want)
				}
			}
		}
		mustAdd(t, c)
	})
}
