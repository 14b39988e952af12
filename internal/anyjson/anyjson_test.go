package anyjson

import (
	"encoding/json"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type inner struct{ A any }

type outer struct {
	inner
	B map[string]any
	C []*inner
	D [1]any
	E int64
	F json.Number
	G map[string]inner
}

func TestNumbers(t *testing.T) {
	var got outer
	d := json.NewDecoder(strings.NewReader(`{"A":9007199254740993,"B":{"x":[1,2.5,-0,null,"s"]},"C":[{"A":1e3},null],
		"D":[18446744073709551616],"E":7,"F":8,"G":{"k":{"A":{"deep":9}}}}`))
	d.UseNumber()
	if err := d.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if err := Numbers(reflect.ValueOf(&got), 100); err != nil {
		t.Fatal(err)
	}
	large, _ := new(big.Int).SetString("18446744073709551616", 10)
	want := outer{
		B: map[string]any{"x": []any{int64(1), 2.5, math.Copysign(0, -1), nil, "s"}},
		C: []*inner{{1e3}, nil}, D: [1]any{large}, E: 7, F: "8",
		G: map[string]inner{"k": {map[string]any{"deep": int64(9)}}},
	}
	want.A = int64(9007199254740993)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(outer{}), cmp.Comparer(func(x, y *big.Int) bool { return x.Cmp(y) == 0 })); diff != "" {
		t.Error(diff)
	}
}

func TestNumbersRefuses(t *testing.T) {
	for text, want := range map[string]string{
		strings.Repeat("9", 21): "a number of more than 20 digits",
		"1e999":                 "a number that is too large for a float64",
	} {
		v := any(json.Number(text))
		if err := Numbers(reflect.ValueOf(&v), 20); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestHolds(t *testing.T) {
	type own struct{ V json.RawMessage }
	type loop struct {
		Next *loop
		N    int
	}
	for _, tt := range []struct {
		t    reflect.Type
		want bool
	}{
		{reflect.TypeFor[any](), true},
		{reflect.TypeFor[outer](), true},
		{reflect.TypeFor[[]map[string]*inner](), true},
		{reflect.TypeFor[error](), false},
		{reflect.TypeFor[own](), false},
		{reflect.TypeFor[loop](), false},
		{reflect.TypeFor[int](), false},
	} {
		if got := Holds(tt.t); got != tt.want {
			t.Errorf("%v: %t", tt.t, got)
		}
	}
}
