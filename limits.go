package yonder

import (
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// Limits bound what the other end of a connection may cost. They are enforced before
// memory is taken. The zero value of each field is its default; a value outside what a
// field allows counts as the nearest one inside. See SPEC.md, "Limits".
type Limits struct {
	// MaxMessage is the largest message accepted, in bytes: the arguments of a call, its
	// results, or one value of a stream; from 1 KiB to 2 GiB. Zero means 64 MiB. A larger
	// message fails its call with [ResourceExhausted]; the connection stays open.
	MaxMessage int
	// MaxCalls is the number of calls that the other end may have in flight, from 1 to
	// 65,536. Zero means 1,000. Calls beyond it wait at the caller's end.
	MaxCalls int
	// MaxStreams is the number of streams and readers that this end consumes at a time, one
	// connection. Zero means 1,000. A call whose stream is beyond it fails with
	// [ResourceExhausted].
	MaxStreams int
	// Window is how much the other end may send on a stream before it is read, in bytes,
	// from 64 KiB to 1 GiB. Zero means 256 KiB. One value may go beyond it.
	Window int
	// MaxMetadata is the largest metadata of a call, or of its answer, in bytes, from 4 KiB
	// to 32 KiB. Zero means 16 KiB.
	MaxMetadata int
	// MaxNames is the number of procedures, told apart by name and signature, that the other
	// end may call on one connection. Zero means 65,536. Calls of others fail with
	// [ResourceExhausted] at the caller's end.
	MaxNames int
	// FirstByte is how long a new connection may take to show its protocol, and the native
	// one to greet. Zero means 10 seconds.
	FirstByte time.Duration
	// KeepAlive is how long the other end may be silent before it is asked for a sign of
	// life, and then how long it may take to give one; it is also how long a write may make
	// no progress, and, besides what it takes to send it slowly, a request in parts. Zero means
	// 15 seconds; less than zero, for ever.
	KeepAlive time.Duration
	// MaxKept is how much this end keeps of what the other has not acknowledged, in bytes, one
	// connection that may be resumed, from 1 MiB to 1 GiB. Zero means 4 MiB. More waits to be
	// sent; one write may go beyond it. See [Dialer.Resume].
	MaxKept int
}

// orDefault returns v within low and high, or the default if it is zero.
func orDefault[T int | time.Duration](v, zero, low, high T) T {
	if v == 0 {
		return zero
	}
	return min(max(v, low), high)
}

// WithDefaults returns the limits with each field as it counts: defaults instead of
// zeros, and within what is possible.
func (l Limits) WithDefaults() Limits {
	d := Limits{
		MaxMessage:  orDefault(l.MaxMessage, 64<<20, 1<<10, 1<<31-1),
		MaxCalls:    orDefault(l.MaxCalls, 1000, 1, wire.MaxSlots),
		MaxStreams:  orDefault(l.MaxStreams, 1000, 1, 1<<20),
		Window:      orDefault(l.Window, 256<<10, wire.MinWindow, 1<<30),
		MaxMetadata: orDefault(l.MaxMetadata, 16<<10, wire.MinMeta, 32<<10),
		MaxNames:    orDefault(l.MaxNames, 1<<16, 1, 1<<20),
		FirstByte:   orDefault(l.FirstByte, 10*time.Second, time.Millisecond, 1<<62),
		KeepAlive:   orDefault(l.KeepAlive, 15*time.Second, time.Millisecond, 1<<62),
		MaxKept:     orDefault(l.MaxKept, 4<<20, 1<<20, 1<<30),
	}
	if l.KeepAlive < 0 {
		d.KeepAlive = -1
	}
	return d
}

// greeting is what this end announces.
func (l *Limits) greeting(codecs []Codec) wire.Greeting {
	d := l.WithDefaults()
	g := wire.Greeting{
		MaxMessage: uint64(d.MaxMessage), MaxCalls: uint64(d.MaxCalls), MaxNames: uint64(d.MaxNames),
		MaxMeta: uint64(d.MaxMetadata), Window: uint64(d.Window),
	}
	for _, c := range codecs {
		g.Codecs = append(g.Codecs, c.Name())
	}
	return g
}
