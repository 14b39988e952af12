package jsonrpc_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/web"
)

// noteServer has procedures for notifications.
func noteServer(t *testing.T, maxCalls int) (srv *yonder.Server, ended chan error, quick chan int) {
	srv = &yonder.Server{Logger: newLogger(t), Protocols: []yonder.Protocol{web.Protocol}}
	srv.Limits.MaxCalls = maxCalls
	ended, quick = make(chan error, 100), make(chan int, 100)
	srv.Register("hang", func(ctx context.Context) {
		<-ctx.Done()
		ended <- context.Cause(ctx)
	})
	srv.Register("quick", func(n int) { quick <- n })
	return srv, ended, quick
}

const hang = `{"jsonrpc":"2.0","method":"hang"}`

// poster returns what posts over one connection and returns the answer's status.
func poster(t *testing.T, conn net.Conn) func(body string) int {
	conn.SetDeadline(time.Time{})
	in := bufio.NewReader(conn)
	return func(body string) int {
		t.Helper()
		fmt.Fprintf(conn, "POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		a, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, a.Body)
		if want := map[bool]string{true: "1"}[a.StatusCode == 429]; a.Header.Get("Retry-After") != want {
			t.Errorf("status %d: Retry-After is %q", a.StatusCode, a.Header.Get("Retry-After"))
		}
		return a.StatusCode
	}
}

// One client's notifications are not waited for by others, whether they share the server's port or
// a handler.
func TestHTTPNotifications(t *testing.T) {
	hangs := "[" + hang + "," + hang + "," + hang + "]"
	quick := func(n int) string { return fmt.Sprintf(`{"jsonrpc":"2.0","method":"quick","params":[%d]}`, n) }
	t.Run("shared port", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv, ended, ran := noteServer(t, 3)
			a, b := poster(t, pipePeer(t, srv).conn), poster(t, pipePeer(t, srv).conn)
			began := time.Now()
			if status := a(hangs); status != 204 {
				t.Errorf("status %d", status)
			}
			if status := b(quick(1)); status != 204 || <-ran != 1 {
				t.Errorf("another client: status %d", status)
			}
			if took := time.Since(began); took != 0 {
				t.Errorf("it took %v", took)
			}
			if status := a(quick(2)); status != 429 || time.Since(began) != 10*time.Second {
				t.Errorf("the same client: status %d after %v", status, time.Since(began))
			}
			if status := a("[" + quick(3) + "," + quick(4) + "]"); status != 204 || time.Since(began) != 20*time.Second {
				t.Errorf("a batch of its: status %d after %v", status, time.Since(began))
			}
			time.Sleep(35 * time.Second)
			if status := a(quick(5)); status != 204 || <-ran != 5 { // when the first have ended
				t.Errorf("later: status %d", status)
			}
			if took := time.Since(began); took != time.Minute {
				t.Errorf("the notifications ended after %v", took)
			}
			for range 3 {
				if cause := <-ended; cause.Error() != "the notification took too long" {
					t.Error(cause)
				}
			}
		})
	})
	t.Run("handler", func(t *testing.T) {
		noLeaks(t)
		srv, _, ran := noteServer(t, 3)
		url := serveHTTP(t, srv, new(jsonrpc.Config))
		exchange{body: hangs, status: 204}.run(t, url)
		for n := range 3 {
			exchange{body: quick(n), status: 204}.run(t, url)
			if got := <-ran; got != n {
				t.Errorf("%d ran, want %d", got, n)
			}
		}
	})
}

// Clients that go, and leave notifications behind, do not have any number of them run.
func TestHTTPNotificationCrowd(t *testing.T) {
	noLeaks(t)
	srv, ended, ran := noteServer(t, 2)
	url := serveHTTP(t, srv, new(jsonrpc.Config))
	for range 8 {
		exchange{body: "[" + hang + "," + hang + "]", status: 204}.run(t, url)
	}
	select {
	case cause := <-ended:
		t.Errorf("one of 16 was cancelled: %v", cause)
	default:
	}
	exchange{body: `{"jsonrpc":"2.0","method":"quick","params":[1]}`, status: 204}.run(t, url)
	<-ran
	if cause := <-ended; !strings.Contains(cause.Error(), "longest") {
		t.Error(cause)
	}
	select {
	case cause := <-ended:
		t.Errorf("a second was cancelled: %v", cause)
	default:
	}
}
