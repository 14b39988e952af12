package fn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"strings"
	"testing"
	"time"
)

type (
	job struct {
		Items []item
		Extra any
		Named map[string]*item
	}
	item    struct{ Done any }
	watched struct {
		Name string
		C    chan int
	}
	wrapped struct{ watched }
	unsent  struct {
		C chan int `json:"-"`
		f func()
		X int
	}
	bag struct {
		S iter.Seq[int]
		R io.Reader
		F func() error
		E error
		T time.Time
		N *watched
	}
)

func TestExplain(t *testing.T) {
	c := make(chan int)
	loop := &node{}
	loop.Next = loop
	self := []any{nil}
	self[0] = self
	table := map[string]any{}
	table["me"] = table
	shared := &item{}
	for _, test := range []struct {
		v    any
		want string
	}{
		{nil, "<nil>"},
		{1, "<nil>"},
		{user{"a", 1}, "<nil>"},
		{job{Items: []item{{1}, {"a"}}, Named: map[string]*item{"a": shared, "b": shared, "c": nil}}, "<nil>"},
		{unsent{C: c, f: func() {}}, "<nil>"},
		{json.RawMessage("{"), "<nil>"},
		{[]any{time.Now(), nil, map[string]any{"a": []int{1}}}, "<nil>"},
		{tree{}, "<nil>"},
		{job{Items: []item{{1}, {2}, {3}, {c}}}, "field job.Items[3].Done: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{&job{Extra: c}, "field job.Extra: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{job{Extra: job{Extra: &item{1i}}}, "field job.Extra.Extra.Done: complex128 cannot cross a connection; use a struct or [2]float64"},
		{job{Named: map[string]*item{"a b": {c}}}, `field job.Named["a b"].Done: chan int cannot cross a connection; use iter.Seq2[int, error]`},
		{map[int]any{7: c}, "element [7]: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{[]item{{c}}, "field [0].Done: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{struct{ A any }{c}, "field A: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{c, "chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{watched{}, "field watched.C: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{wrapped{}, "field wrapped.C: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{(*watched)(nil), "field watched.C: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{[]watched{}, "field [].C: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{map[string][]watched{}, "field [][].C: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{map[complex64]int{}, "element [key]: complex64 cannot cross a connection; use a struct or [2]float32"},
		{map[error]int{io.EOF: 1}, "element [*errors.errorString]: an error travels only as the last result; use a string or a struct"},
		{[]uintptr{1}, "element [0]: uintptr cannot cross a connection; use uint64"},
		{bag{}, "field bag.S: iter.Seq[int] cannot cross a connection; a function or an iterator travels as an argument of its own, not within another type"},
		{item{io.Reader(strings.NewReader(""))}, "<nil>"}, // a struct to the codec
		{struct{ R io.Reader }{}, "<nil>"},
		{struct{ R io.Reader }{strings.NewReader("")}, "field R: io.Reader cannot cross a connection; use io.Reader as an argument or result of its own"},
		{struct{ F func() error }{}, "field F: func() error cannot cross a connection; a function or an iterator travels as an argument of its own, not within another type"},
		{struct{ E error }{errors.New("a")}, "field E: an error travels only as the last result; use a string or a struct"},
		{struct{ E context.Context }{}, "<nil>"},
		{struct{ S fmt.Stringer }{time.Now()}, "field S: fmt.Stringer cannot cross a connection; use a concrete type or any"},
		{loop, "field node.Next: cyclic pointer"},
		{self, "element [0]: cyclic slice"},
		{table, `element ["me"]: cyclic map`},
	} {
		if got := fmt.Sprint(Explain(reflect.ValueOf(test.v))); got != test.want {
			t.Errorf("%T:\n got %s\nwant %s", test.v, got, test.want)
		}
	}
	if err := Explain(reflect.Value{}); err != nil {
		t.Error(err)
	}
}

func TestExplainLongPath(t *testing.T) {
	n := &node{}
	for range maxLevels / 3 {
		n = &node{Next: n}
	}
	if err := Explain(reflect.ValueOf(n)); err != nil {
		t.Error(err)
	}
	last := n
	for last.Next != nil {
		last = last.Next
	}
	last.Next = n
	err := Explain(reflect.ValueOf(n))
	if err == nil || len(err.Error()) > 300 || !strings.HasPrefix(err.Error(), "field node.Next.Next") || !strings.HasSuffix(err.Error(), ".Next.Next: cyclic pointer") {
		t.Errorf("got %v", err)
	}
}
