package fn

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type args struct{ A, B int }

type arith struct{ calls int }

func (a *arith) Add(x args, sum *int) error { a.calls++; *sum = x.A + x.B; return nil }
func (a *arith) Div(ctx context.Context, x *args, reply *args) error {
	if x.B == 0 {
		return errors.New("divide by zero")
	}
	reply.A, reply.B = x.A/x.B, x.A%x.B
	return nil
}
func (a *arith) Count(x int, reply *map[string]int) error { (*reply)["n"] = x; return nil }
func (a *arith) Sum(ctx context.Context, n ...int) (int, error) {
	return len(n), nil
}
func (a *arith) Watch(c chan int) {}

//lint:ignore U1000 it is not exported, so nothing is said of it
func (a *arith) hidden() {}

func TestMethods(t *testing.T) {
	a := new(arith)
	suitable, skipped := Methods(reflect.ValueOf(a))
	got := map[string]string{}
	byName := map[string]Method{}
	for _, m := range suitable {
		byName[m.Name] = m
		got[m.Name] = m.Func.Signature().String()
		if m.Func.Reply {
			got[m.Name] += " reply"
		}
	}
	want := map[string]string{
		"Add":   "(fn.args{A int; B int}) (int) reply",
		"Div":   "(*fn.args{A int; B int}) (fn.args{A int; B int}) reply",
		"Count": "(int) (map[string]int) reply",
		"Sum":   "(...int) (int)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	wantSkipped := []Skipped{{"Watch", "argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]"}}
	if diff := cmp.Diff(wantSkipped, skipped); diff != "" {
		t.Error(diff)
	}

	tests := []struct {
		name string
		arg  any
		want any
		err  string
	}{
		{"Add", args{1, 2}, 3, "<nil>"},
		{"Div", &args{7, 2}, args{3, 1}, "<nil>"},
		{"Div", &args{7, 0}, args{}, "divide by zero"},
		{"Count", 3, map[string]int{"n": 3}, "<nil>"},
		{"Sum", []int{1, 2}, 2, "<nil>"},
	}
	for _, test := range tests {
		m := byName[test.name]
		got, err := callFunc(m.Func, t.Context(), m.Value, test.arg)
		if diff := cmp.Diff([]any{test.want}, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
		if text := fmt.Sprint(err); text != test.err {
			t.Errorf("%s: error %s, want %s", test.name, text, test.err)
		}
	}
	if a.calls != 1 {
		t.Errorf("Add was called %d times on the receiver", a.calls)
	}
}
