package rpc

import (
	"errors"
	"reflect"
	"sync"
)

// Before gob decodes the first value of a type it goes through the type's definition, once for
// each Go type that there is to decode into. Of a struct's field that the Go type has not, it goes
// through all slices, arrays and maps behind it, and for the next such field again; and it keeps
// nothing of what does not fit. So a few KB of definitions, a thousand fields with a thousand types
// behind each, keep it busy for long. The guard counts these steps before gob takes them. A
// program's own types have fewer steps than bytes.
type work struct {
	mu     sync.Mutex // guards what follows, and the guard's types where another goroutine reads them
	done   map[use]bool
	steps  uint64 // of gob's, first ones
	more   uint64 // of gob's, after what did not fit
	paid   uint64 // bytes that had arrived when a value was admitted last
	passes uint64 // see wireType.passed
}

const (
	maxSteps     = 1 << 16 // a connection, besides one for each byte that has arrived
	stepsPerByte = 4       // of steps that are taken again after what did not fit
)

var errSteps = errors.New("rpc: the peer's types take too many steps to decode")

// A use is a type, and what a value of it is decoded into.
type use struct {
	id   int64
	into reflect.Type // without pointers; nil: it is passed over, or that is not known
}

// uses are those of a value, on its own and in interfaces.
type uses struct {
	value use
	held  map[use]bool
}

func (w want) use(id int64) use {
	if w.kind != typed {
		return use{id: id}
	}
	return use{id, w.base()}
}

// weigh counts the steps for a value that is admitted.
func (g *guard) weigh(u uses) error {
	if u.value.id < gobUser && u.held == nil {
		return nil
	}
	g.work.mu.Lock()
	defer g.work.mu.Unlock()
	g.work.paid = g.seen
	if g.work.done == nil {
		g.work.done = make(map[use]bool)
	}
	w := weighing{guard: g, done: g.work.done, steps: g.work.steps, most: maxSteps + g.seen}
	w.uses(u)
	g.work.steps = w.steps
	if w.undefined {
		g.work.done = nil // when it is defined, there will be more
	}
	if w.steps > w.most || g.work.tooMuch() {
		return errSteps
	}
	g.uses = u
	return nil
}

// again counts the steps for a value that did not decode. It may be called from any goroutine.
func (g *guard) again(u uses) {
	if u.value.id < gobUser && u.held == nil {
		return
	}
	g.work.mu.Lock()
	defer g.work.mu.Unlock()
	if g.work.tooMuch() {
		return
	}
	w := weighing{guard: g, done: make(map[use]bool), most: maxSteps + g.work.paid}
	w.uses(u)
	g.work.more += w.steps
}

// spent reports whether no more values are to be decoded. It may be called from any goroutine.
func (g *guard) spent() bool {
	g.work.mu.Lock()
	defer g.work.mu.Unlock()
	return g.work.tooMuch()
}

func (w *work) tooMuch() bool { return w.more > maxSteps+stepsPerByte*w.paid }

// A weighing goes through types as gob does, with the guard's work locked.
type weighing struct {
	guard     *guard
	done      map[use]bool
	steps     uint64
	most      uint64 // it ends there
	undefined bool   // a type is not defined
}

func (w *weighing) uses(u uses) {
	w.use(u.value)
	for held := range u.held {
		w.use(held)
	}
}

// use goes through a type, unless gob has kept it.
func (w *weighing) use(u use) {
	if u.id < gobUser || w.done[u] || w.steps > w.most {
		return
	}
	t := w.guard.types[u.id]
	if t == nil {
		w.undefined = true
		return
	}
	w.done[u] = true
	w.steps++
	switch {
	case t.kind == kindStruct:
		var wanted []want
		if u.into != nil && u.into.Kind() == reflect.Struct {
			wanted = t.fieldsIn(u.into)
		}
		for i, id := range t.fields {
			w.steps++
			if wanted != nil && wanted[i].kind == typed {
				w.use(wanted[i].use(id))
			} else if id >= gobUser {
				w.pass(id, w.nextPass())
			}
		}
	case t.kind == kindOpaque:
	case u.into == nil:
		w.pass(u.id, w.nextPass())
	default:
		key, elem := want{typed, u.into}.elem()
		if t.kind == kindMap {
			w.use(key.use(t.key))
		}
		w.use(elem.use(t.elem))
	}
}

// nextPass returns a number of its own.
func (w *weighing) nextPass() uint64 {
	w.guard.work.passes++
	return w.guard.work.passes
}

// pass goes through a type that is passed over, in a pass that comes by each type once.
func (w *weighing) pass(id int64, pass uint64) {
	if id < gobUser || w.steps > w.most {
		return
	}
	t := w.guard.types[id]
	if t == nil {
		w.undefined = true
		return
	}
	if t.passed == pass {
		return
	}
	t.passed = pass
	w.steps++
	switch {
	case t.kind == kindStruct:
		w.use(use{id: id})
	case t.kind == kindMap:
		w.pass(t.key, pass)
		w.pass(t.elem, pass)
	case t.kind != kindOpaque:
		w.pass(t.elem, pass)
	}
}
