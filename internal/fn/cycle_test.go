package fn

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

type (
	parent struct {
		Children []*child
	}
	child struct {
		Parent *parent `json:"-"`
		Name   string
	}
	graph struct {
		Name  string
		Edges []*graph
		Attrs map[string]any
		Keys  map[any]bool
		Box   any
		At    time.Time
	}
	embeds struct {
		*embedded
		Name string
	}
	embedded struct{ Inner *embeds }
	chain    *chain
)

func TestWalk(t *testing.T) {
	for _, test := range []struct {
		v    any
		want bool
	}{
		{1, false},
		{"", false},
		{user{}, false},
		{[]map[string]*user{}, false},
		{time.Time{}, false},
		{parent{}, false}, // the way back is not encoded
		{node{}, true},
		{[]*node{}, true},
		{struct{ A, B []node }{}, true},
		{tree{}, true},
		{list{}, true},
		{dict{}, true},
		{forest{}, true},
		{grove{}, true},
		{[]any{}, true},
		{map[any]int{}, true},
		{struct{ E error }{}, true},
		{struct{ e error }{}, false},
		{embeds{}, true},
		{chain(nil), true},
		{page[user]{}, false},
		{page[any]{}, true},
	} {
		if got := mayCycle(reflect.TypeOf(test.v)); got != test.want {
			t.Errorf("%T: %v", test.v, got)
		}
	}
}

// cycles returns values that contain themselves, and how Acyclic says so.
func cycles() map[string]any {
	n := &node{}
	n.Next = &node{Next: n}
	l := list{nil, nil}
	l[1] = l
	d := dict{}
	d["a"] = d
	a := []any{1, nil}
	a[1] = map[string]any{"b": a}
	var box any
	box = &box
	g := &graph{Attrs: map[string]any{"x": 1}}
	g.Attrs["g"] = []any{0, g}
	e := &embeds{embedded: &embedded{}}
	e.Inner = e
	var c chain
	c = &c
	k := &graph{}
	k.Keys = map[any]bool{k: true}
	return map[string]any{
		"field node.Next.Next: cyclic pointer":        n,
		"element list[1]: cyclic slice":               l,
		`element dict["a"]: cyclic map`:               d,
		`element [1]["b"]: cyclic slice`:              a,
		"cyclic pointer":                              box,
		`field graph.Attrs["g"][1]: cyclic pointer`:   g,
		"field embeds.Inner: cyclic pointer":          e,
		"cyclic pointer ":                             c,
		"field graph.Keys[*fn.graph]: cyclic pointer": k,
		"field Deep: nested deeper than 10000 levels": struct{ Deep any }{deep(3 * maxLevels)},
	}
}

// deep returns slices within slices.
func deep(levels int) any {
	var v any
	for range levels {
		v = []any{v}
	}
	return v
}

func TestAcyclicRefuses(t *testing.T) {
	for want, v := range cycles() {
		err := Acyclic(reflect.ValueOf(v))
		switch {
		case err == nil:
			t.Errorf("%T: no error", v)
		case want == "field Deep: nested deeper than 10000 levels":
			got := err.Error()
			if !strings.HasPrefix(got, "field Deep[0][0]") || !strings.HasSuffix(got, "[0][0]: nested deeper than 10000 levels") || len(got) > 300 {
				t.Errorf("got %s\nwant %s", got, want)
			}
		case err.Error()+" " != want && err.Error() != want:
			t.Errorf("got %s\nwant %s", err, want)
		}
	}
}

func TestAcyclicAccepts(t *testing.T) {
	long := &node{}
	for range maxLevels - 10 {
		long = &node{Next: long}
	}
	twice := &node{}
	half := make([]any, 4)
	copy(half, []any{1, half[2:], nil, nil}) // overlaps itself, but holds no way back
	shared := &graph{Name: "leaf"}
	dag := shared
	for range 100 { // 2^100 paths
		dag = &graph{Edges: []*graph{dag, dag}, Attrs: map[string]any{"a": dag}, Box: dag}
	}
	wide := &graph{}
	for range 10 * maxUnnoted {
		wide.Edges = append(wide.Edges, &graph{Box: shared})
	}
	p := &parent{}
	p.Children = []*child{{Parent: p}}
	for name, v := range map[string]any{
		"scalar": 1, "nil": nil, "nil node": (*node)(nil), "node": node{}, "tree": tree{}, "long": long, "pair": []*node{twice, twice},
		"half": half, "dag": dag, "wide": wide, "parent": p, "deep": deep(maxLevels/2 - 10), "graph": graph{}, "embeds": embeds{}, "chain": chain(new(chain)),
		"empty slices": []any{[]any{}, []any{}, [0]any{}},
	} {
		start := time.Now()
		if err := Acyclic(reflect.ValueOf(v)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: took %v", name, d)
		}
	}
}

// A height is that of all that is shared, whichever way it was first reached.
func TestAcyclicSharedDepth(t *testing.T) {
	below := &node{}
	for range maxLevels * 2 / 3 {
		below = &node{Next: below}
	}
	above := below
	for range maxLevels * 2 / 3 {
		above = &node{Next: above}
	}
	if err := Acyclic(reflect.ValueOf([]*node{below, below})); err != nil {
		t.Error(err)
	}
	if err := Acyclic(reflect.ValueOf([]*node{below, above})); err == nil {
		t.Error("no error")
	}
}

// Acyclic and a plain depth-first search agree on random graphs.
func TestAcyclicRandom(t *testing.T) {
	found := map[bool]int{}
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		nodes := make([]*graph, 1+rnd.IntN(12))
		for i := range nodes {
			nodes[i] = &graph{Attrs: map[string]any{}}
		}
		edges := make([][]int, len(nodes))
		for range rnd.IntN(len(nodes) + 1) {
			from, to := rnd.IntN(len(nodes)), rnd.IntN(len(nodes))
			edges[from] = append(edges[from], to)
			switch g := nodes[from]; rnd.IntN(4) {
			case 0:
				g.Edges = append(g.Edges, nodes[to])
			case 1:
				g.Attrs[fmt.Sprint(rnd.Int())] = nodes[to]
			case 2:
				g.Attrs[fmt.Sprint(rnd.Int())] = []any{1, map[string]*graph{"x": nodes[to]}}
			case 3:
				g.Box = []any{g.Box, nodes[to]}
			}
		}
		state := make([]int, len(nodes)) // 1 inside, 2 done
		var cyclic func(i int) bool
		cyclic = func(i int) bool {
			if state[i] > 0 {
				return state[i] == 1
			}
			state[i] = 1
			for _, to := range edges[i] {
				if cyclic(to) {
					return true
				}
			}
			state[i] = 2
			return false
		}
		want := cyclic(0)
		found[want]++
		v := reflect.ValueOf(nodes[0])
		if err := Acyclic(v); (err != nil) != want {
			t.Errorf("seed %d: Acyclic says %v, cyclic is %v", seed, err, want)
		}
		if err := Explain(v); (err != nil) != want {
			t.Errorf("seed %d: Explain says %v, cyclic is %v", seed, err, want)
		}
	}
	if found[true] < 100 || found[false] < 100 {
		t.Errorf("one-sided: %v", found)
	}
}

// Plans are shared by all goroutines and made by any.
func TestAcyclicConcurrent(t *testing.T) {
	type inner struct{ Next, Other any }
	type outer struct {
		A *outer
		B []inner
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			loop := &outer{}
			loop.A = loop
			for _, v := range []any{&outer{B: []inner{{1, loop}}}, inner{Next: loop}, loop} {
				if Acyclic(reflect.ValueOf(v)) == nil {
					t.Errorf("%T: no error", v)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAcyclic(b *testing.B) {
	list := &node{}
	for range 100 {
		list = &node{Next: list}
	}
	wide := &node{}
	for range 5000 {
		wide = &node{Next: wide}
	}
	for name, v := range map[string]any{
		"map":      map[string]any{"a": 1, "b": "x", "c": []any{1, 2, 3}, "d": map[string]any{"e": nil}},
		"list100":  list,
		"list5000": wide,
		"user":     []any{user{"a", 1}, &user{"b", 2}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			v := reflect.ValueOf(v)
			for b.Loop() {
				if err := Acyclic(v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
