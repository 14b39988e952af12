package jsonrpc

import (
	"slices"
	"strconv"
	"testing"
)

func TestIDIndex(t *testing.T) {
	var x idIndex
	add := func(id string, timed bool) *activeCall {
		a := &activeCall{timed: timed}
		if id != "" {
			a.id = []byte(id)
		}
		x.add(a)
		return a
	}
	cancelling := func(id string, late bool, found bool, want ...*activeCall) {
		t.Helper()
		calls, any := x.cancelling([]byte(id), late)
		if !slices.Equal(calls, want) || any != found {
			t.Errorf("%s: %d calls, %v; want %d, %v", id, len(calls), any, len(want), found)
		}
	}
	cancelling("1", false, false)
	none := add("", false)
	a, b, timed, other := add("1", false), add("1", false), add("1", true), add("1.0", false)
	cancelling("", false, false)
	cancelling("1", true, true, b, a)
	cancelling("1", true, true)
	c := add("1", false)
	cancelling("1", false, true, c, timed) // each is cancelled once
	cancelling("1", false, true)
	for _, gone := range []*activeCall{b, none, c, a} {
		x.remove(gone)
		cancelling("1", false, true)
	}
	x.remove(timed)
	cancelling("1", false, false)
	cancelling("1.0", false, true, other)
	x.remove(other)

	// Memory goes with what needed it.
	if x.first == nil {
		t.Error("a small map was not kept")
	}
	var calls []*activeCall
	for i := range 2 * keptIDs {
		calls = append(calls, add(strconv.Itoa(i), i%2 == 0))
	}
	for _, a := range calls {
		x.remove(a)
	}
	if x.first != nil {
		t.Error("a large map was kept")
	}
}
