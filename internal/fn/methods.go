package fn

import "reflect"

// Method is a method that can be registered.
type Method struct {
	Name  string
	Func  *Func
	Value reflect.Value // bound to its receiver
}

// Skipped is an exported method that cannot be registered.
type Skipped struct {
	Name   string
	Reason string // what [Callee] says
}

// Methods returns the exported methods of rcvr, by name: those that [Callee] accepts and the
// others. A method of the shape func(arg A, reply *R) error, with or without a context before,
// is taken as net/rpc does: reply is the result.
func Methods(rcvr reflect.Value) (suitable []Method, skipped []Skipped) {
	t := rcvr.Type()
	for i := range t.NumMethod() {
		name, m := t.Method(i).Name, rcvr.Method(i)
		f, err := method(m.Type())
		if err != nil {
			skipped = append(skipped, Skipped{name, err.Error()})
			continue
		}
		suitable = append(suitable, Method{name, f, m})
	}
	return suitable, skipped
}

func method(t reflect.Type) (*Func, error) {
	in := t.NumIn()
	if in > 0 && t.In(0) == contextType {
		in--
	}
	if in == 2 && !t.IsVariadic() && t.NumOut() == 1 && t.Out(0) == errorType {
		p := t.In(t.NumIn() - 1)
		if p.Kind() == reflect.Pointer && unsuitable(p) == nil {
			return newFunc(t, true, nil)
		}
	}
	return Callee(t)
}
