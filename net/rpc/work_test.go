package rpc

import (
	"bytes"
	"io"
	"slices"
	"testing"
)

// workDef is a message that defines a type of a kind, as gob's wireType counts them, by what comes
// behind its CommonType.
func workDef(id int64, kind byte, parts ...int64) []byte {
	body := []byte{kind}
	delta := byte(2)
	for _, part := range parts {
		body = appendUint(append(body, delta), uint64(part)<<1)
		delta = 1
	}
	return guardMessage(-id, append(body, 0, 0)...)
}

func workSlice(id, elem int64) []byte    { return workDef(id, 2, elem) }
func workMap(id, key, elem int64) []byte { return workDef(id, 4, key, elem) }

// workStruct defines a struct of fields of these types, called X, but for the last.
func workStruct(id int64, last string, fields ...int64) []byte {
	body := append([]byte{3, 2}, appendUint(nil, uint64(len(fields)))...)
	for i, f := range fields {
		name := "X"
		if i == len(fields)-1 {
			name = last
		}
		body = append(append(body, 1, byte(len(name))), name...)
		body = append(appendUint(append(body, 1), uint64(f)<<1), 0)
	}
	return guardMessage(-id, append(body, 0, 0)...)
}

// workChain defines n slices, each of the next one, and the last of ints.
func workChain(first int64, n int) (defs [][]byte) {
	for i := range int64(n) {
		defs = append(defs, workSlice(first+i, first+i+1))
	}
	defs[n-1] = workSlice(first+int64(n)-1, gobInt)
	return defs
}

func workFields(n int, id int64) []int64 { return slices.Repeat([]int64{id}, n) }

type workBad struct{ Bad string }

// TestWork has types be refused that gob would be long busy with, and others not.
func TestWork(t *testing.T) {
	guardGob()
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	chain := workChain(1000, 500)
	upwards := slices.Clone(chain)
	slices.Reverse(upwards)
	many := workStruct(100, "X", workFields(1000, 1000)...)
	empty := guardMessage(100, 0)

	var each []byte // of a chain, a value of each
	for i, def := range slices.Backward(workChain(1000, 2000)) {
		each = append(append(each, def...), guardMessage(int64(1000+i), 0, 0)...)
	}
	long := workChain(1000, 1000)
	later := join(workStruct(100, "X", workFields(50, 1000)...), join(long[:999]...), empty, long[999], empty)
	var tree []byte // of maps
	for i := range int64(400) {
		tree = append(tree, workMap(1000+i, 1001+i, 1001+i)...)
	}
	tree = append(tree, workMap(1400, gobInt, gobInt)...)
	var structs []byte // each has the next one, and the chain
	for i := range int64(400) {
		structs = append(structs, workStruct(200+i, "X", append(workFields(5, 1000), 201+i)...)...)
	}
	structs = append(structs, workStruct(600, "X", gobInt)...)
	deep := join(workStruct(100, "X", workFields(1000, 200)...))
	for i := range int64(700) {
		deep = append(deep, workStruct(200+i, "X", 201+i, 201+i, 201+i)...)
	}
	deep = append(deep, workStruct(900, "X", gobInt)...)
	name := "github.com/yonder-rpc/yonder/net/rpc.guardOther"
	held := append(append([]byte{1, byte(len(name))}, name...), 0xff, 200, 1, 0, 0)
	again := func(n int) (stream []byte) {
		stream = join(workStruct(100, "Bad", append(workFields(100, 1000), gobInt)...), join(workChain(1000, 100)...))
		for range n {
			stream = append(stream, guardMessage(100, 101, 2, 0)...)
		}
		return stream
	}

	for _, test := range []struct {
		name   string
		stream []byte
		into   func() any
		ok     bool
	}{
		{"fields, then a chain", join(many, join(chain...), empty), func() any { return new(requestHeader) }, false},
		{"a chain, then fields", join(join(upwards...), many, empty), func() any { return new(responseHeader) }, false},
		{"into nothing", join(many, join(chain...), empty), func() any { return nil }, false},
		{"in a slice", join(many, join(chain...), workSlice(101, 100), guardMessage(101, 0, 0)), func() any { return new([]requestHeader) }, false},
		{"in an interface", join(workStruct(101, "Any", gobInterface), many, join(chain...), guardMessage(101, held...)), func() any { return new(guardLeaf) }, false},
		{"maps of maps", join(workStruct(100, "X", workFields(1000, 1000)...), tree, empty), func() any { return nil }, false},
		{"structs with a chain each", join(structs, join(chain...), guardMessage(200, 0)), func() any { return nil }, false},
		{"a chain that ends later", later, func() any { return new(requestHeader) }, false},
		{"each type of a chain", each, func() any { return nil }, false},
		{"one chain", join(join(chain...), guardMessage(1000, 0, 0)), func() any { return nil }, true},
		{"maps of maps once", join(tree, guardMessage(1000, 0, 0)), func() any { return nil }, true},
		{"the same structs many times", join(deep, empty), func() any { return nil }, true},
		{"what does not fit, once", again(1), func() any { return new(workBad) }, true},
		{"what does not fit, a thousand times", again(1000), func() any { return new(workBad) }, false},
		{"the same thrown away", again(1000), func() any { return nil }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newGobDecoder(bytes.NewReader(test.stream), 0)
			for range 20_000 {
				d.decode(test.into())
				if d.guard.err != nil {
					break
				}
			}
			if err := d.guard.err; (err == io.EOF) != test.ok || err != io.EOF && err != errSteps {
				t.Errorf("%d bytes: %v", len(test.stream), err)
			}
		})
	}
}

// TestWorkLate has arguments that fail when they are decoded late count, too.
func TestWorkLate(t *testing.T) {
	stream := append(workStruct(100, "Bad", append(workFields(100, 1000), gobInt)...), bytes.Join(workChain(1000, 100), nil)...)
	for range 1000 {
		stream = append(stream, guardMessage(100, 101, 2, 0)...)
	}
	c := newGobServerCodec(readOnly{bytes.NewReader(stream)}, 0, false)
	c.late = newLateDecoder(c.guard, nil)
	for n := range 1000 {
		if err := c.ReadRequestBody(new(workBad)); err == errSteps {
			if n < 2 {
				t.Errorf("it was refused after %d", n)
			}
			return
		}
	}
	t.Error("it was not refused")
}

// TestWorkEnds has such types end a connection at either end of it.
func TestWorkEnds(t *testing.T) {
	stream := append(workStruct(100, "X", workFields(1000, 1000)...), bytes.Join(workChain(1000, 500), nil)...)
	stream = append(stream, guardMessage(100, 0)...)
	if err := newGobServerCodec(readOnly{bytes.NewReader(stream)}, 0, false).ReadRequestHeader(new(Request)); err != errSteps {
		t.Errorf("a server: %v", err)
	}
	if err := newGobClientCodec(readOnly{bytes.NewReader(stream)}, 0).ReadResponseHeader(new(Response)); err != errSteps {
		t.Errorf("a client: %v", err)
	}
}

// readOnly is a connection that only has what is to be read.
type readOnly struct{ io.Reader }

func (readOnly) Write(b []byte) (int, error) { return len(b), nil }
func (readOnly) Close() error                { return nil }

// TestWorkLarge has a service of thousands of types pass, each of which has others in it, and lists
// of lists and tables of them, and itself.
func TestWorkLarge(t *testing.T) {
	const (
		lists  = 1000 // of lists of lists of strings
		tables = 1003 // by themselves
		first  = 2000 // of the structs; behind each come the collections of it
		number = 2000
	)
	stream := bytes.Join([][]byte{
		workSlice(lists, lists+1), workSlice(lists+1, lists+2), workSlice(lists+2, gobString), workMap(tables, gobString, tables),
	}, nil)
	for id := int64(first); id < first+4*number; id += 4 {
		last := max(id-4, first)
		stream = append(stream, workStruct(id, "Last",
			gobInt, gobString, gobBytes, gobBool, gobInterface, lists, lists+1, tables, last, last+1, last+2, id, id+1, id+3, gobInt)...)
		stream = append(stream, workSlice(id+1, id)...)
		stream = append(stream, workMap(id+2, gobString, id+3)...)
		stream = append(stream, workSlice(id+3, id+1)...)
		stream = append(stream, guardMessage(id, 15, 2, 0)...)
	}
	for _, into := range []any{nil, new(struct{ Last int })} {
		d := newGobDecoder(bytes.NewReader(stream), 0)
		for i := range number {
			if err := d.decode(into); err != nil {
				t.Fatalf("%d types into %T: %v", i, into, err)
			}
		}
		if steps := d.guard.work.steps; steps > uint64(len(stream)) {
			t.Errorf("%d bytes into %T are %d steps", len(stream), into, steps)
		}
	}
}
