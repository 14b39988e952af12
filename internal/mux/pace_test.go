package mux

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// TestPace: a peer that takes nothing of a large message is sent no more than the bound of
// it, and small calls go past what waits.
func TestPace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := config(nobody)
		cfg.Dialer = true
		c, p := against(t, cfg, true, true)
		synctest.Wait()
		large, err := c.Start(t.Context(), request(strings.Repeat("x", calmPace+6*partSize)))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		const calm, crowded = calmPace / partSize, minPace / partSize
		if n := len(p.received(wire.Part)); n != calm {
			t.Errorf("%d parts went out before any was taken, want %d", n, calm)
		}
		small, err := c.Start(t.Context(), request("small"))
		if err != nil {
			t.Fatal(err)
		}
		defer small.Forget()
		synctest.Wait()
		if n := len(p.received(wire.Request)); n != 2 {
			t.Errorf("%d requests, want that of the small call, too", n)
		}
		p.send(wire.Header{Type: wire.Credit}, wire.AppendCredit(nil, 0, (calm-crowded)*partSize))
		synctest.Wait()
		if n := len(p.received(wire.Part)); n != calm {
			t.Errorf("%d parts went out beside a small message, want %d", n-calm, 0)
		}
		p.send(wire.Header{Type: wire.Credit}, wire.AppendCredit(nil, 0, 3*partSize))
		synctest.Wait()
		if n := len(p.received(wire.Part)); n != calm+3 {
			t.Errorf("%d parts went out when three were taken", n-calm)
		}
		large.Abandon(context.Canceled, errors.New("never mind"))
		synctest.Wait()
		if _, held := c.w.parted(); held {
			t.Error("a message that nobody wants is kept")
		}
		p.send(wire.Header{Type: wire.Credit}, wire.AppendCredit(nil, 0, minPace+1))
		synctest.Wait()
		if got := p.received(wire.GoAway); len(got) != 1 || !strings.Contains(string(got[0].body), "parts that have not been sent") {
			t.Errorf("credit for what was not sent: %v, %v", c.Err(), got)
		}
	})
}

// TestTurns: a message of which little is missing is sent to its end; a larger one has the others go
// first after each part, or when one has been sent to its end, after as many; over a slow path all do.
func TestTurns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := config(nobody)
		cfg.Dialer = true
		c, p := against(t, cfg, true, true)
		synctest.Wait()
		start := func(parts int) {
			o, err := c.Start(t.Context(), request(strings.Repeat("x", parts*partSize)))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(o.Forget)
			synctest.Wait()
		}
		seen := 0
		// order names the messages whose parts come. The peer takes four at a time, each after a time.
		order := func(after time.Duration) string {
			var got strings.Builder
			for parts := p.received(wire.Part); seen < len(parts); parts = p.received(wire.Part) {
				for _, f := range parts[seen:] {
					got.WriteByte('a' + byte(f.ID))
					time.Sleep(after)
					if seen++; seen%4 == 0 {
						p.send(wire.Header{Type: wire.Credit}, wire.AppendCredit(nil, 0, takenStep))
					}
				}
				synctest.Wait()
			}
			return got.String()
		}
		const calm = calmPace / partSize // what is on its way when the others come
		for _, test := range []struct {
			after time.Duration
			sizes []int // of the others, in parts
			want  string
		}{
			{0, []int{40, 4, 4}, strings.Repeat("b", calm) + "ccccdddd" + strings.Repeat("b", 40-calm)},
			{0, []int{4, 40, 4}, "ffffgggghhhh" + strings.Repeat("g", 36)},
			{turnTime, []int{20, 20}, "jjjjjjjjj" + strings.Repeat("kj", 11) + strings.Repeat("k", 9)},
		} {
			start(calm)
			for _, parts := range test.sizes {
				start(parts)
			}
			if got := order(test.after)[calm:]; got != test.want {
				t.Errorf("after %v each: %s, want %s", test.after, got, test.want)
			}
		}
		if c.Err() != nil {
			t.Error(c.Err())
		}
	})
}

// TestTaken: who receives a large message says how far it has come, whether or not anybody
// wants it.
func TestTaken(t *testing.T) {
	for _, wanted := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			c, p := against(t, config(echo), true, true)
			p.name()
			id := uint32(1 << 16)
			if wanted {
				p.request(id, wire.More, takenStep+partSize, "")
			}
			part := append([]byte{0}, make([]byte, partSize)...)
			for range takenStep/partSize - 1 {
				p.send(wire.Header{Type: wire.Part, Flags: wire.More, ID: id}, part)
			}
			synctest.Wait()
			if n := len(p.received(wire.Credit)); n != 0 {
				t.Errorf("%d credits before a step", n)
			}
			p.send(wire.Header{Type: wire.Part, Flags: wire.More, ID: id}, part)
			p.send(wire.Header{Type: wire.Part, ID: id}, part)
			synctest.Wait()
			got := p.received(wire.Credit)
			if len(got) != 1 || got[0].ID != 0 || string(got[0].body) != string(wire.AppendCredit(nil, 0, takenStep)) {
				t.Errorf("wanted %v: %v", wanted, got)
			}
			if c.Err() != nil {
				t.Error(c.Err())
			}
		})
	}
}

// TestCloseUntaken is a regression: an answer that waited for the peer to take what had
// been sent of it went on waiting when the connection had ended.
func TestCloseUntaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		replied := make(chan bool, 1)
		c, p := against(t, config(func(_ context.Context, in *Incoming) {
			answer(in, strings.Repeat("x", calmPace+6*partSize))
			replied <- true
		}), true, true)
		p.name()
		p.request(1<<16, 0, 0, "")
		synctest.Wait()
		select {
		case <-replied:
			t.Fatal("nothing waits for the peer")
		default:
		}
		c.Close()
		<-replied
		synctest.Wait()
		if n := counts(c).Incoming; n != 0 {
			t.Errorf("%d calls are held", n)
		}
	})
}

// TestUntaken: a peer that talks, but takes nothing of a large message, is given up.
func TestUntaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := config(nobody)
		cfg.Dialer = true
		cfg.KeepAlive = 15 * time.Second
		cfg.Handshake = cfg.KeepAlive
		c, p := against(t, cfg, true, true)
		synctest.Wait()
		o, err := c.Start(t.Context(), request(strings.Repeat("x", calmPace+6*partSize)))
		if err != nil {
			t.Fatal(err)
		}
		var talk sync.WaitGroup
		defer talk.Wait()
		talk.Go(func() {
			for p.send(wire.Header{Type: wire.Pong}, make([]byte, 8)) == nil {
				time.Sleep(5 * time.Second)
			}
		})
		began := time.Now()
		var lost *LostError
		if err := o.Wait(t.Context()); !errors.As(err, &lost) || !strings.Contains(err.Error(), "taken nothing") {
			t.Errorf("the call: %v", err)
		}
		if took := time.Since(began); took > 4*cfg.KeepAlive {
			t.Errorf("it took %v", took)
		}
	})
}

// TestPaceGrows: the bound follows the path.
func TestPaceGrows(t *testing.T) {
	// transfer sends n bytes over a path of this delay and rate, in bytes a second. The other
	// end says that it has taken them when they make a step, as it must; the rest is unsaid.
	var p pace
	unsaid := 0
	transfer := func(n int, delay time.Duration, rate int) {
		bubble(t, func(t *testing.T) {
			type arrival struct {
				at time.Time
				n  int
			}
			var way []arrival
			free := time.Now() // when the path has brought all that is on it
			for left := n; left > 0 || len(way) > 0; {
				for left > 0 && p.room() {
					k := min(left, partSize)
					p.send(k)
					left -= k
					if now := time.Now(); free.Before(now) {
						free = now
					}
					free = free.Add(time.Duration(k) * time.Second / time.Duration(rate))
					way = append(way, arrival{free.Add(delay), k})
				}
				time.Sleep(time.Until(way[0].at))
				if unsaid += way[0].n; unsaid >= takenStep {
					if !p.take(uint64(unsaid)) {
						t.Fatal("it counts wrong")
					}
					unsaid = 0
				}
				way = way[1:]
			}
		})
	}
	for _, c := range []struct {
		name      string
		delay     time.Duration
		rate      int
		low, high uint64
	}{
		{"in the same machine", 50 * time.Microsecond, 1 << 30, minPace, minPace},
		{"in a building", 200 * time.Microsecond, 1 << 30, minPace, minPace},
		{"across an ocean", 100 * time.Millisecond, 100 << 20, 8 << 20, maxPace},
		{"across an ocean, slowly", 100 * time.Millisecond, 1 << 20, minPace, 1 << 20},
	} {
		for _, before := range []int{0, 1 << 20} { // on a short path
			p, unsaid = pace{}, 0
			transfer(before, 50*time.Microsecond, 1<<30)
			transfer(64<<20, c.delay, c.rate)
			if got := max(p.window, minPace); got < c.low || got > c.high {
				t.Errorf("%s, after %d bytes: the bound is %d bytes, want %d to %d", c.name, before, got, c.low, c.high)
			}
		}
	}
}

// TestLastPart: what is a little more than some full parts takes no other, for which it would wait
// until the peer has taken some.
func TestLastPart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := config(nobody)
		cfg.Dialer = true
		c, p := against(t, cfg, true, true)
		synctest.Wait()
		const size = 1<<20 + 5 // 16 full parts and 21 bytes
		large, err := c.Start(t.Context(), request(strings.Repeat("x", size)))
		if err != nil {
			t.Fatal(err)
		}
		defer large.Forget()
		synctest.Wait()
		parts := p.received(wire.Part)
		got := 0
		for i, f := range parts {
			got += len(f.body) - 1
			if last := i == len(parts)-1; last == (f.Flags&wire.More != 0) {
				t.Errorf("part %d of %d has the flags %v", i+1, len(parts), f.Flags)
			}
		}
		if got != size || len(parts) != size/partSize {
			t.Errorf("%d bytes came in %d parts, want %d in %d", got, len(parts), size, size/partSize)
		}
	})
}

// sized is a connection that remembers how much each read asked for.
type sized struct {
	net.Conn
	mu    sync.Mutex
	reads []int
}

func (s *sized) Read(b []byte) (int, error) {
	s.mu.Lock()
	s.reads = append(s.reads, len(b))
	s.mu.Unlock()
	return s.Conn.Read(b)
}

// TestPartsPastBuffer: between the parts of a message no more is read into the buffer than what is
// in front of the next one's payload, and all else as much at a time as it holds.
func TestPartsPastBuffer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		go io.Copy(io.Discard, far) // ends with the pipe
		s := &sized{Conn: near}
		c := start(t, s, config(echo))
		p := &peer{tb: t, conn: far}
		p.write([]byte(wire.Preface))
		g := local()
		p.send(wire.Header{Type: wire.Hello}, wire.AppendHello(nil, &g))
		p.name()
		const id, parts = 1 << 16, 4
		part := append([]byte{0}, make([]byte, partSize)...)
		send := func(id uint32) (reads []int) {
			s.mu.Lock()
			s.reads = nil
			s.mu.Unlock()
			for i := range parts {
				h := wire.Header{Type: wire.Part, Flags: wire.More, ID: id}
				if i == parts-1 {
					h.Flags = 0
				}
				p.send(h, part)
			}
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.reads
		}
		p.request(id, wire.More, parts*partSize, "")
		synctest.Wait()
		narrow := func(reads []int) (n int) {
			for _, asked := range reads {
				if asked == partHead {
					n++
				}
			}
			return n
		}
		if reads := send(id); narrow(reads) != parts-1 || reads[len(reads)-1] < wholeFrame {
			t.Errorf("reads of %d bytes for %d parts", reads, parts)
		}
		if reads := send(2 * id); narrow(reads) != 0 { // of a call that there is not
			t.Errorf("reads of %d bytes for parts that nobody wants", reads)
		}
		if c.Err() != nil {
			t.Error(c.Err())
		}
	})
}
