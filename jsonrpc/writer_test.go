package jsonrpc

import (
	"errors"
	"io"
	"testing"
)

// A message that may have been sent is not said not to have been: a client would send it
// again, and the call would run twice.
func TestWriteOnce(t *testing.T) {
	conn, _ := io.Pipe()
	lost := 0
	w := newWriter(conn, -1, func([]byte, []int) error { return errors.New("reset") })
	w.lost = func(error) { lost++ }
	if err := w.write([]byte("1"), lines, false); err != nil {
		t.Errorf("the first message, which was sent: %v", err)
	}
	if err := w.write([]byte("2"), lines, false); err == nil {
		t.Error("the second message, which was not sent: no error")
	}
	if lost != 1 {
		t.Errorf("lost was called %d times", lost)
	}
	w.drain()
}
