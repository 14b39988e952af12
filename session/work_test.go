package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// workType makes a message that defines a type of a kind, as gob's wireType counts them, by what
// comes behind its name.
func workType(id int64, kind byte, rest []byte) []byte {
	body := append(append(appendUint(nil, uint64(id-1)<<1|1), kind, 2), rest...)
	return appendString(nil, string(append(body, 0, 0)))
}

// workStruct defines a struct of so many fields of a type, and a first one called Message.
func workStruct(id int64, fields int, of int64) []byte {
	def := appendUint(nil, uint64(fields+1))
	def = append(appendString(append(def, 1), "Message"), 1, stringID<<1, 0)
	for range fields {
		def = append(appendUint(append(appendString(append(def, 1), "X"), 1), uint64(of)<<1), 0)
	}
	return workType(id, 3, def)
}

// workChain defines n slices, each of the next one, and the last of ints.
func workChain(first int64, n int) (defs []byte) {
	for id := first; id < first+int64(n)-1; id++ {
		defs = append(defs, workType(id, 2, appendUint(nil, uint64(id+1)<<1))...)
	}
	return append(defs, workType(first+int64(n)-1, 2, []byte{intID << 1})...)
}

// workMessage has structs, without fields, as its arguments, of types by their names, behind
// definitions of more than those of an RPCData.
func workMessage(defs []byte, args int, id int64, name func(i int) string) []byte {
	funcField := append(appendString([]byte{1}, "Func"), 1, stringID<<1, 0)
	argsField := append(appendUint(append(appendString([]byte{1}, "Args"), 1), 66<<1), 0)
	stream := workType(65, 3, append(append([]byte{2}, funcField...), argsField...))
	stream = append(append(stream, workType(66, 2, []byte{interfaceID << 1})...), defs...)
	value := appendUint(append(appendUint(nil, 65<<1), 2), uint64(args))
	for i := range args {
		value = append(appendUint(appendString(value, name(i)), uint64(id)<<1), 1, 0)
	}
	return append(stream, appendString(nil, string(append(value, 0)))...)
}

// Types are refused that gob would be long busy with, and others not.
func TestWork(t *testing.T) {
	registerOwn()
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	known := func(int) string { return "yonder.session.Error" }
	other := func(i int) string { return fmt.Sprint("name", i) }
	var tree, structs []byte
	for id := int64(1000); id < 1300; id++ {
		next := appendUint(nil, uint64(id+1)<<1)
		tree = append(tree, workType(id, 4, bytes.Join([][]byte{next, next}, []byte{1}))...)
		structs = append(structs, workStruct(id, 5, id+1)...)
	}
	tree = append(tree, workType(1300, 2, []byte{intID << 1})...)
	structs = append(structs, workStruct(1300, 0, intID)...)
	for _, test := range []struct {
		name   string
		stream []byte
		ok     bool
	}{
		{"fields, then a chain", workMessage(join(workStruct(67, 500, 1000), workChain(1000, 300)), 1, 67, known), false},
		{"a chain, then fields", workMessage(join(workChain(1000, 300), workStruct(67, 500, 1000)), 1, 67, known), false},
		{"maps of maps", workMessage(join(workStruct(67, 500, 1000), tree), 1, 67, known), false},
		{"behind a struct", workMessage(join(workStruct(67, 1, 68), workStruct(68, 500, 1000), workChain(1000, 300)), 1, 67, known), false},
		{"by many names", workMessage(workStruct(67, 1000, intID), 100, 67, other), false},
		{"one chain", workMessage(join(workStruct(67, 1, 1000), workChain(1000, 3000)), 1, 67, known), true},
		{"maps of maps once", workMessage(join(workStruct(67, 1, 1000), tree), 1, 67, known), true},
		{"the same structs many times", workMessage(join(workStruct(67, 1000, 1000), structs), 50, 67, known), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, _, err := checked(test.stream)
			if (err == nil) != test.ok || err != nil && !strings.Contains(err.Error(), "its types take more than") {
				t.Errorf("%d bytes: %v", len(test.stream), err)
			}
			if !test.ok {
				return
			}
			if _, err := decode(test.stream, nil, func(string) {}); err != nil {
				t.Error(err)
			}
		})
	}
}

// A program's own types have fewer steps than bytes, whatever it is that is sent.
func TestWorkSamples(t *testing.T) {
	for i, msg := range samples() {
		frame, err := tryEncode(msg)
		if err != nil {
			t.Fatal(err)
		}
		c := &checker{stream: frame[headerSize:], types: make(map[int64]*wireType), out: new([]byte), most: int(binary.BigEndian.Uint32(frame))}
		id := c.typeSequence(false)
		c.message(id)
		c.work(id)
		if c.steps > len(c.defs) {
			t.Errorf("message %d: %d bytes of definitions are %d steps", i, len(c.defs), c.steps)
		}
	}
}
