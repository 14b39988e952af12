package gobvalue_test

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder/internal/gobvalue"
)

type price struct {
	Amount big.Int
	Link   url.URL
	Name   string
	_      string
}

type node struct {
	Next  *node
	Value any
}

type named []any

func exact(a, b big.Int) bool { return a.Cmp(&b) == 0 }

// What is made of a value is what gob decodes as that value.
func TestOf(t *testing.T) {
	gob.Register(big.Int{})
	gob.Register(price{})
	gob.Register([]any{})
	n, link := *big.NewInt(-5), url.URL{Scheme: "http", Host: "example.com", Path: "/a"}
	p := price{Amount: n, Link: link, Name: "x"}
	for _, v := range []any{
		n, link, p, &p, [2]big.Int{n, n}, [1]price{p}, []big.Int{n}, []price{p}, map[string]*big.Int{"a": &n},
		[]any{n, nil, 1, []any{n}}, named{n, "a"}, [2]any{1, n}, map[string]any{"a": n, "b": p}, map[any]int{"a": 1},
		node{&node{nil, n}, p}, &node{Value: []any{p}}, struct{ Any any }{n}, struct{ Err fmt.Stringer }{},
		1, "a", time.Unix(1, 0), netip.MustParseAddr("::1"), []byte("a"), map[string]int{"a": 1},
	} {
		before := fmt.Sprintf("%#v", v)
		var buf bytes.Buffer
		if err := gob.NewEncoder(&buf).Encode(gobvalue.Of(v)); err != nil {
			t.Errorf("%T: %v", v, err)
			continue
		}
		if after := fmt.Sprintf("%#v", v); after != before {
			t.Errorf("%T was changed from %s to %s", v, before, after)
		}
		got := reflect.New(reflect.TypeOf(v))
		if err := gob.NewDecoder(&buf).DecodeValue(got); err != nil {
			t.Errorf("%T: %v", v, err)
			continue
		}
		if diff := cmp.Diff(v, got.Elem().Interface(), cmp.Comparer(exact), cmp.AllowUnexported(price{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%T: %s", v, diff)
		}
	}
}

// What gob can encode as it is stays as it is.
func TestOfLeavesAlone(t *testing.T) {
	s := []any{1, "a", nil, big.NewInt(1)}
	if got := gobvalue.Of(s).([]any); &got[0] != &s[0] {
		t.Error("a slice was copied for nothing")
	}
	for _, v := range []any{nil, 1, errors.New("x"), &price{}, (*price)(nil), map[string]big.Int{}} {
		if got := gobvalue.Of(v); !reflect.DeepEqual(got, v) || reflect.TypeOf(got) != reflect.TypeOf(v) {
			t.Errorf("of %T it made %T", v, got)
		}
	}
	var loop any = new(big.Int)
	if n := testing.AllocsPerRun(100, func() { gobvalue.Of(loop); gobvalue.Of("a") }); n != 0 {
		t.Errorf("%v allocations for what needs nothing", n)
	}
}

func TestExplain(t *testing.T) {
	encode := func(v any) error { return gobvalue.Explain(gob.NewEncoder(new(bytes.Buffer)).Encode(gobvalue.Of(v))) }
	if err := encode(map[string]big.Int{"a": {}}); fmt.Sprint(err) != "gob: unaddressable value of type *big.Int in a map, where gob cannot reach its method; make it a map of pointers" {
		t.Error(err)
	}
	if err := encode(func() {}); fmt.Sprint(err) != "gob: type func() has no exported fields" && fmt.Sprint(err) != "gob NewTypeObject can't handle type: func()" {
		t.Error(err)
	}
	if err := encode(1); err != nil {
		t.Error(err)
	}
}
