package interop

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"io"
	"net"
	"reflect"
	"testing"

	"github.com/yonder-rpc/yonder/session"
)

// A toy is the article's client: it has a type of its own for messages, and one call in flight.
type toy struct{ conn net.Conn }

type toyMessage struct {
	Func string
	Args []any
}

// call calls a function and returns its results.
func (c toy) call(name string, args ...any) ([]any, error) {
	if err := toyWrite(c.conn, toyMessage{name, args}); err != nil {
		return nil, err
	}
	answer, err := toyRead(c.conn)
	if err == nil && answer.Func != name {
		err = fmt.Errorf("the answer to %q is from %q", name, answer.Func)
	}
	return answer.Args, err
}

func toyWrite(w io.Writer, msg toyMessage) error {
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(msg); err != nil {
		return err
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(body.Len())), body.Bytes()...))
	return err
}

func toyRead(r io.Reader) (msg toyMessage, err error) {
	var size uint32
	if err := binary.Read(r, binary.BigEndian, &size); err != nil {
		return msg, err
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return msg, err
	}
	return msg, gob.NewDecoder(bytes.NewReader(body)).Decode(&msg)
}

// The article's client calls yonder. What it makes of errors is tested in package session.
func TestToyClient(t *testing.T) {
	p := openPlain(t)
	c := toy{dial(t, p.address)}
	for _, e := range []struct {
		name string
		args []any
		want []any
	}{
		{"subtract", []any{42, 23}, []any{19}},
		{"HelloService.Hello", []any{"toy"}, []any{"Hello, toy", nil}},
		{"Wire.Name", []any{0}, []any{"session"}},
	} {
		if got, err := c.call(e.name, e.args...); !reflect.DeepEqual(got, e.want) || err != nil {
			t.Errorf("%s: %v, %v, want %v", e.name, got, err, e.want)
		}
	}
}

// Yonder calls the article's server, which answers one request on a connection.
func TestToyServer(t *testing.T) {
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { // ends with the answer
		request, err := toyRead(far)
		if err == nil {
			err = toyWrite(far, toyMessage{request.Func, []any{request.Args[0].(int) - request.Args[1].(int)}})
		}
		done <- err
	}()
	c := session.NewClient(near)
	defer c.Close()
	var plain func(a, b int) int
	c.Call("subtract", &plain)
	if got := plain(42, 23); got != 19 {
		t.Errorf("%d, want 19", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
