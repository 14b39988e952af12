// Package zstd compresses yonder's messages with Zstandard, RFC 8878. It is a module
// of its own, so that programs that do not compress do not carry it.
package zstd

import (
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/yonder-rpc/yonder"
)

// New returns a compression for the Compression fields of [yonder.Server] and
// [yonder.Dialer]. Both ends need one. It may serve any number of connections.
//
// A peer that may send compressed messages may have this end take the memory of the
// largest message that it accepts with a few bytes: compress between ends that trust
// each other, or lower Limits.MaxMessage.
func New() yonder.Compression {
	// The options are constants, so there is no error.
	enc, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	return &compression{enc: enc, decs: make(map[int]*zstd.Decoder)}
}

type compression struct {
	enc *zstd.Encoder

	mu   sync.Mutex
	decs map[int]*zstd.Decoder // by limit, of which a program has few
}

func (*compression) Name() string { return "zstd" }

func (c *compression) Compress(dst, src []byte) []byte { return c.enc.EncodeAll(src, dst) }

func (c *compression) Decompress(dst, src []byte, limit int) ([]byte, error) {
	dec, err := c.decoder(limit)
	if err != nil {
		return nil, err
	}
	return dec.DecodeAll(src, dst)
}

func (c *compression) decoder(limit int) (*zstd.Decoder, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if dec := c.decs[limit]; dec != nil {
		return dec, nil
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(uint64(limit)), zstd.WithDecoderConcurrency(0))
	if err == nil {
		c.decs[limit] = dec
	}
	return dec, err
}
