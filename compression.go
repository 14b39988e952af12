package yonder

import (
	"github.com/yonder-rpc/yonder/internal/mux"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// A Compression makes messages smaller. It is used on a connection whose two ends
// have one of the same name, for arguments and results of 1 KiB and more that it does
// make smaller; not for streams and readers. JSON-RPC over HTTP takes a
// server's for a content encoding of its name. Package zstd, a module of its own, has
// one. Implementations are safe for concurrent use.
type Compression interface {
	// Name is how the two ends agree on it, such as "zstd".
	Name() string
	// Compress appends src, compressed, to dst.
	Compress(dst, src []byte) []byte
	// Decompress appends src, decompressed, to dst. It must withstand any src, and return an
	// error, without taking the memory, if more than limit bytes would be appended.
	Decompress(dst, src []byte, limit int) ([]byte, error)
}

// minPacked is the smallest message that is worth compressing, in bytes.
const minPacked = 1 << 10

// pack compresses a message, if that was agreed on and helps, and returns the flag
// that says so.
func (l *link) pack(msg **mux.Message) wire.Flags {
	body := (*msg).Bytes()
	if l.compression == nil || len(body) < minPacked || uint64(len(body)) > l.mux.Packs() {
		return 0
	}
	packed := mux.NewMessage()
	packed.Write(l.compression.Compress(packed.AvailableBuffer(), body))
	if packed.Len() >= len(body) {
		packed.Release()
		return 0
	}
	(*msg).Release()
	*msg = packed
	return wire.Packed
}

// unpack decompresses a message.
func (l *link) unpack(body []byte) ([]byte, error) {
	return l.compression.Decompress(nil, body, int(l.mux.Local().MaxMessage))
}

// body returns the encoded arguments of a call. They are decompressed when they are wanted: an
// interceptor may refuse the call before.
func (sc *serverCall) body() ([]byte, error) {
	if sc.in.Flags&wire.Packed != 0 {
		body, err := sc.link.unpack(sc.in.Body)
		if err != nil {
			return nil, Errorf(ResourceExhausted, "yonder: the arguments cannot be decompressed to at most %d bytes", sc.link.mux.Local().MaxMessage)
		}
		sc.in.ReplaceBody(body)
		sc.in.Flags &^= wire.Packed
	}
	beginTexts(&sc.call.texts, sc.in.Body, sc.sharing())
	return sc.in.Body, nil
}
