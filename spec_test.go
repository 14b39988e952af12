package yonder_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder"
)

// QuotaError is an error type that crosses.
type QuotaError struct{ Limit int }

func (e *QuotaError) Error() string { return fmt.Sprintf("quota of %d exceeded", e.Limit) }

// testdata/client.mjs is a client in JavaScript that knows what SPEC.md says and nothing
// else. That it works shows that the text says enough, and that the implementation does so.
func TestSpecSuffices(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs node; run it without -short")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node, https://nodejs.org, version 20 or later: apt-get install nodejs")
	}
	for _, codec := range []string{"cbor", "json"} {
		t.Run(codec, func(t *testing.T) {
			leave := make(chan bool, 1)
			var stopped, canceled, noted atomic.Int32
			srv := &yonder.Server{Codecs: []yonder.Codec{yonder.JSON}, Errors: map[string]error{"QuotaError": (*QuotaError)(nil)}}
			srv.Register("describe", func(ctx context.Context, u struct {
				Name string
				Age  int
			}, tags []string) (string, int) {
				info, _ := yonder.InfoFrom(ctx)
				yonder.SetReply(ctx, "served-for", info.Metadata["tenant"])
				return fmt.Sprintf("%s is %d, %v", u.Name, u.Age, tags), len(tags)
			})
			srv.Register("find", func(id int) (User, error) {
				return User{}, yonder.Errorf(yonder.NotFound, "user %d: %w", id, fs.ErrNotExist)
			})
			srv.Register("limited", func() error {
				return &yonder.Error{Code: yonder.ResourceExhausted, Details: "tomorrow", Err: &QuotaError{10}}
			})
			srv.Register("note", func(string) { noted.Add(1) })
			srv.Register("reverse", func(b []byte) []byte { slices.Reverse(b); return b })
			srv.Register("texts", func(n, size int) iter.Seq[string] {
				return func(yield func(string) bool) {
					for range n {
						if !yield(strings.Repeat("x", size)) {
							stopped.Add(1)
							return
						}
					}
				}
			})
			srv.Register("sum", func(numbers iter.Seq2[int64, error]) (sum int64, err error) {
				for n, err := range numbers {
					if err != nil {
						return 0, err
					}
					sum += n
				}
				return sum, nil
			})
			srv.Register("size", func(name string, r io.Reader) (int64, error) { return io.Copy(io.Discard, r) })
			srv.Register("open", func() io.Reader { return strings.NewReader("the content") })
			srv.Register("each", func(n int, f func(int) (int, error)) (sum int, err error) {
				for i := range n {
					square, err := f(i)
					if err != nil {
						return 0, err
					}
					sum += square
				}
				return sum, nil
			})
			srv.Register("wait", func(ctx context.Context, begun func() error) error {
				if begun != nil {
					begun()
				}
				<-ctx.Done()
				canceled.Add(1)
				return ctx.Err()
			})
			srv.Register("leave", func() { leave <- true })

			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error)
			go func() { served <- srv.Serve(l) }() // ends with Shutdown
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			down := make(chan error, 1)
			go func() { // ends with ctx
				select {
				case <-leave:
				case <-ctx.Done():
				}
				down <- srv.Shutdown(ctx)
			}()
			port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
			var stderr bytes.Buffer
			cmd := exec.CommandContext(ctx, node, "testdata/client.mjs", port, codec)
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("node client.mjs: %v, after:\n%s%s", err, out, stderr.Bytes())
			}
			if err := <-served; !errors.Is(err, yonder.ErrServerClosed) {
				t.Error(err)
			}
			if err := <-down; err != nil {
				t.Error(err)
			}
			if stopped.Load() != 1 || canceled.Load() != 3 || noted.Load() != 1 {
				t.Errorf("%d streams were stopped, want 1; %d calls canceled, want 3; %d notes, want 1", stopped.Load(), canceled.Load(), noted.Load())
			}
		})
	}
}

// SPEC.md's table of codes is that of the package.
func TestSpecCodes(t *testing.T) {
	spec, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	next := yonder.Canceled
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \| ([a-z_]+) \|[^|]*\|$`).FindAllStringSubmatch(string(spec), -1) {
		if row[1] != fmt.Sprint(int(next)) || row[2] != next.String() {
			t.Fatalf("SPEC.md has code %s, %s, where %d, %v is expected", row[1], row[2], next, next)
		}
		next++
	}
	if next != yonder.Unauthenticated+1 {
		t.Errorf("SPEC.md has no code %v", next)
	}
}
