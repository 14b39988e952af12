package session_test

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"reflect"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/session"
)

// A foreign peer: what speaks the protocol without this package, as briefly as can be. It has a
// type of its own for the message, and the faults of its kind: its server answers one request on
// a connection and leaves it open, and none of its errors reach the caller.
type foreign struct {
	Func string
	Args []any
}

func foreignWrite(w io.Writer, msg foreign) error {
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(struct {
		Func string
		Args []any
	}(msg)); err != nil {
		return err
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(body.Len())), body.Bytes()...))
	return err
}

func foreignRead(r io.Reader) (msg foreign, err error) {
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

// foreignServe answers one request on each connection, and then closes none until the test ends.
func foreignServe(t *testing.T, functions map[string]any) net.Conn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			msg, err := foreignRead(conn)
			if err != nil {
				continue
			}
			var in []reflect.Value
			for _, arg := range msg.Args {
				in = append(in, reflect.ValueOf(arg))
			}
			msg.Args = nil
			for _, out := range reflect.ValueOf(functions[msg.Func]).Call(in) {
				msg.Args = append(msg.Args, out.Interface())
			}
			foreignWrite(conn, msg) // which fails, and says nothing, if there is an error that gob does not know
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// foreignCall calls a function as such a client does, down to the panic where the results do not
// fit the function's type.
func foreignCall(conn net.Conn, name string, f any) {
	v := reflect.ValueOf(f).Elem()
	v.Set(reflect.MakeFunc(v.Type(), func(args []reflect.Value) []reflect.Value {
		msg := foreign{Func: name}
		for _, arg := range args {
			msg.Args = append(msg.Args, arg.Interface())
		}
		if err := foreignWrite(conn, msg); err != nil {
			panic(err)
		}
		msg, err := foreignRead(conn)
		if err != nil {
			panic(err)
		}
		var out []reflect.Value
		for i, arg := range msg.Args {
			if arg == nil {
				out = append(out, reflect.Zero(v.Type().Out(i)))
			} else {
				out = append(out, reflect.ValueOf(arg))
			}
		}
		return out
	}))
}

// soldOut is an error that programs have registered with gob at both ends.
type soldOut struct{ What string }

func (e *soldOut) Error() string { return e.What + " is sold out" }

type order struct {
	Item  string
	Count int
}

func init() {
	gob.Register(&soldOut{})
	gob.Register(order{})
}

func TestForeignClient(t *testing.T) {
	address := serve(t, shop())
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	var buy func(string, int) (order, error)
	foreignCall(conn, "buy", &buy)
	if got, err := buy("tea", 2); got != (order{"tea", 2}) || err != nil {
		t.Errorf("buy: %v, %v", got, err)
	}
	// An error whose type both programs have registered reaches any client.
	got, err := buy("coffee", 1)
	if sold, ok := errors.AsType[*soldOut](err); !ok || sold.What != "coffee" || got != (order{}) {
		t.Errorf("buy: %v, %v", got, err)
	}
	var sum func(...int) int
	foreignCall(conn, "sum", &sum)
	if got := sum(1, 2, 3); got != 6 { // it passes the slice as it is
		t.Errorf("sum: %d", got)
	}
	// So does another if its program knows the name, as this one does, which has this package too.
	if _, err := buy("nothing", 1); err == nil || err.Error() != "buy: unexpected EOF" {
		t.Errorf("buy: %v", err)
	}
	var none func() error
	foreignCall(conn, "none", &none)
	if err := none(); err == nil || err.Error() != `yonder: no procedure "none"` {
		t.Errorf("none: %v", err)
	}
}

// A client whose process has nothing of this package's.
func TestForeignProcess(t *testing.T) {
	address := os.Getenv("SESSION_TEST_SERVER")
	if address == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestForeignProcess$", "-test.count=1")
		cmd.Env = append(os.Environ(), "SESSION_TEST_SERVER="+serve(t, shop()))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var buy func(string, int) (order, error)
	foreignCall(conn, "buy", &buy)
	if got, err := buy("tea", 2); got != (order{"tea", 2}) || err != nil {
		t.Errorf("buy: %v, %v", got, err)
	}
	if _, err := buy("coffee", 1); !errors.As(err, new(*soldOut)) {
		t.Errorf("buy: %v", err)
	}
	// Another error it cannot decode, which is better than waiting for ever.
	unknown := `gob: name not registered for interface: "yonder.session.Error"`
	if got := panicOf(func() { buy("nothing", 1) }); got != unknown {
		t.Errorf("an error that is not registered: panic %q", got)
	}
	var none func() error
	foreignCall(conn, "none", &none)
	if got := panicOf(func() { none() }); got != unknown {
		t.Errorf("an unknown function: panic %q", got)
	}
	// And the connection is as good as before.
	if got, err := buy("tea", 3); got != (order{"tea", 3}) || err != nil {
		t.Errorf("buy: %v, %v", got, err)
	}
	// A type of its own, registered by that name, makes it an error here.
	gob.RegisterName("yonder.session.Error", ownError{})
	if _, err := buy("nothing", 1); err != (ownError{"buy: unexpected EOF"}) {
		t.Errorf("buy: %#v", err)
	}
}

type ownError struct{ Message string }

func (e ownError) Error() string { return e.Message }

func TestForeignServer(t *testing.T) {
	functions := map[string]any{
		"buy": buy,
		"sum": func(n ...int) (total int) {
			for _, n := range n {
				total += n
			}
			return total
		},
	}
	t.Run("results", func(t *testing.T) {
		client := session.NewClient(foreignServe(t, functions))
		defer client.Close()
		client.Timeout = 50 * time.Millisecond
		var buy func(string, int) (order, error)
		client.Call("buy", &buy)
		if got, err := buy("tea", 2); got != (order{"tea", 2}) || err != nil {
			t.Errorf("%v, %v", got, err)
		}
		// It reads no second request.
		if got, err := buy("tea", 2); yonder.CodeOf(err) != yonder.DeadlineExceeded || got != (order{}) {
			t.Errorf("%v, %v", got, err)
		}
	})
	t.Run("registered error", func(t *testing.T) {
		client := session.NewClient(foreignServe(t, functions))
		defer client.Close()
		var buy func(string, int) (order, error)
		client.Call("buy", &buy)
		_, err := buy("coffee", 1)
		if sold, ok := errors.AsType[*soldOut](err); !ok || sold.What != "coffee" || !yonder.IsRemote(err) || err.Error() != "coffee is sold out" {
			t.Errorf("%#v", err)
		}
	})
	t.Run("variadic", func(t *testing.T) {
		client := session.NewClient(foreignServe(t, functions))
		defer client.Close()
		var sum func(...int) int
		client.Call("sum", &sum)
		if got := sum(1, 2, 3); got != 6 {
			t.Error(got)
		}
	})
}

func buy(item string, count int) (order, error) {
	switch item {
	case "coffee":
		return order{}, &soldOut{item}
	case "nothing":
		return order{}, fmt.Errorf("buy: %w", io.ErrUnexpectedEOF)
	}
	return order{item, count}, nil
}
