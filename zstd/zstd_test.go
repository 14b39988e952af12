package zstd_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/yondertest"
	"github.com/yonder-rpc/yonder/zstd"
)

// counting counts what a compression is asked to do.
type counting struct {
	yonder.Compression
	in, out, back int
}

func (c *counting) Compress(dst, src []byte) []byte {
	b := c.Compression.Compress(dst, src)
	c.in += len(src)
	c.out += len(b)
	return b
}

func (c *counting) Decompress(dst, src []byte, limit int) ([]byte, error) {
	c.back++
	return c.Compression.Decompress(dst, src, limit)
}

func pair(t *testing.T, server, client yonder.Compression, limits yonder.Limits) func(context.Context, []byte) ([]byte, error) {
	srv := &yonder.Server{Compression: server, Limits: limits}
	srv.Register("echo", func(b []byte) []byte { return b })
	c := yondertest.PairDialer(t, srv, &yonder.Dialer{Compression: client})
	var echo func(context.Context, []byte) ([]byte, error)
	c.Bind("echo", &echo)
	if _, err := echo(t.Context(), nil); err != nil { // after which HELLO has come
		t.Fatal(err)
	}
	return echo
}

func TestMessages(t *testing.T) {
	server, client := &counting{Compression: zstd.New()}, &counting{Compression: zstd.New()}
	echo := pair(t, server, client, yonder.Limits{})
	text := []byte(strings.Repeat("the same again, ", 20_000))
	noise := make([]byte, 100_000)
	rand.NewChaCha8([32]byte{}).Read(noise)
	for _, b := range [][]byte{text, noise, text[:100]} {
		got, err := echo(t.Context(), b)
		if err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%d bytes: got %d bytes, error %v", len(b), len(got), err)
		}
	}
	// The noise is tried each way, and sent as it is; the small one is not tried.
	if server.back != 1 || client.back != 1 {
		t.Errorf("the server decompressed %d messages, the client %d; want 1", server.back, client.back)
	}
	if client.in < len(text)+len(noise) || client.out > len(noise)+len(text)/10 {
		t.Errorf("the client compressed %d bytes to %d", client.in, client.out)
	}
}

func TestOneSideOnly(t *testing.T) {
	client := &counting{Compression: zstd.New()}
	echo := pair(t, nil, client, yonder.Limits{})
	if _, err := echo(t.Context(), make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if client.in != 0 {
		t.Errorf("%d bytes were compressed for a server that cannot read them", client.in)
	}
}

// A message that grows beyond the limit is an error of its call.
func TestBomb(t *testing.T) {
	bomb := &bombs{Compression: zstd.New()}
	echo := pair(t, zstd.New(), bomb, yonder.Limits{MaxMessage: 1 << 20})
	_, err := echo(t.Context(), make([]byte, 100_000))
	if yonder.CodeOf(err) != yonder.ResourceExhausted {
		t.Errorf("got %v", err)
	}
	if _, err := echo(t.Context(), []byte("still there")); err != nil {
		t.Error(err)
	}
}

// bombs sends something larger than it was given.
type bombs struct{ yonder.Compression }

func (b *bombs) Compress(dst, src []byte) []byte {
	return b.Compression.Compress(dst, make([]byte, 100<<20))
}

func TestGarbage(t *testing.T) {
	echo := pair(t, zstd.New(), garbage{}, yonder.Limits{})
	_, err := echo(t.Context(), make([]byte, 10_000))
	if e, ok := errors.AsType[*yonder.Error](err); !ok || !yonder.IsRemote(e) || e.Code != yonder.ResourceExhausted {
		t.Errorf("got %v", err)
	}
}

type garbage struct{}

func (garbage) Name() string                                      { return "zstd" }
func (garbage) Compress(dst, src []byte) []byte                   { return append(dst, "garbage"...) }
func (garbage) Decompress(dst, src []byte, n int) ([]byte, error) { return nil, errors.ErrUnsupported }
