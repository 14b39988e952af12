package rpc

import (
	"context"
	"errors"
	"fmt"
	"go/token"
	"log"
	"maps"
	"reflect"
	"runtime/debug"
	"strings"
	"sync/atomic"

	"github.com/yonder-rpc/yonder"
)

// A service is a receiver and those of its methods that can be called.
type service struct {
	name    string
	methods map[string]*method
}

// A method can be called.
type method struct {
	name       string // without the service's
	fn         reflect.Value
	receiver   reflect.Value
	context    bool // it takes one
	arg, reply reflect.Type
	calls      atomic.Uint64
}

var (
	errorType   = reflect.TypeFor[error]()
	contextType = reflect.TypeFor[context.Context]()
)

// Register lets others call the methods of rcvr that are suitable, as "Type.Method", Type
// being the name of rcvr's type. A suitable method is exported and has one of these forms,
// of which the second is this package's own:
//
//	func (t *T) Method(arg A, reply *R) error
//	func (t *T) Method(ctx context.Context, arg A, reply *R) error
//
// A and R are exported or predeclared. It is an error, also logged, if no method is
// suitable or the type is not exported; and one if the name is taken.
func (server *Server) Register(rcvr any) error { return server.register("", rcvr, false) }

// RegisterName is [Server.Register] under a name of the caller's choice.
func (server *Server) RegisterName(name string, rcvr any) error {
	return server.register(name, rcvr, true)
}

func (server *Server) register(name string, rcvr any, named bool) error {
	v := reflect.ValueOf(rcvr)
	t := v.Type()
	if !named {
		name = reflect.Indirect(v).Type().Name()
	}
	switch {
	case name == "":
		return logged("rpc.Register: no service name for type " + t.String())
	case !named && !token.IsExported(name):
		return logged("rpc.Register: type " + name + " is not exported")
	}
	s := &service{name: name, methods: suitable(t, v)}
	if len(s.methods) == 0 {
		text := "rpc.Register: type " + name + " has no exported methods of suitable type"
		if len(suitable(reflect.PointerTo(t), v)) > 0 {
			text += " (hint: pass a pointer to value of that type)"
		}
		return logged(text)
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	old := server.registry.Load()
	if old == nil {
		old = new(registry)
	}
	if old.services[name] != nil {
		return errors.New("rpc: service already defined: " + name)
	}
	r := &registry{services: maps.Clone(old.services), methods: maps.Clone(old.methods)}
	if r.services == nil {
		r.services, r.methods = make(map[string]*service), make(map[string]*method)
	}
	r.services[name] = s
	for _, m := range s.methods {
		r.methods[name+"."+m.name] = m
	}
	server.registry.Store(r)
	return nil
}

// logged logs what is wrong with a registration, as the standard package does, and returns
// it as an error.
func logged(text string) error {
	log.Print(text)
	return errors.New(text)
}

// A registry is what a server has registered. It is replaced, not changed, so that calls
// find their method without a lock.
type registry struct {
	services map[string]*service
	methods  map[string]*method // by service and method
}

// suitable returns the methods of a type that can be called, with a receiver.
func suitable(t reflect.Type, receiver reflect.Value) map[string]*method {
	methods := make(map[string]*method)
	for m := range t.Methods() {
		in := make([]reflect.Type, 0, 3)
		for p := range m.Type.Ins() {
			in = append(in, p)
		}
		in = in[1:] // the receiver
		withContext := len(in) == 3 && in[0] == contextType
		if withContext {
			in = in[1:]
		}
		if len(in) != 2 || m.Type.IsVariadic() || m.Type.NumOut() != 1 || m.Type.Out(0) != errorType ||
			in[1].Kind() != reflect.Pointer || !visible(in[0]) || !visible(in[1]) {
			continue
		}
		methods[m.Name] = &method{
			name: m.Name, fn: m.Func, receiver: receiver, context: withContext, arg: in[0], reply: in[1],
		}
	}
	return methods
}

// visible reports whether a type, or what it points to, is exported or predeclared.
func visible(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return token.IsExported(t.Name()) || t.PkgPath() == ""
}

// A callee is what calls are of: a method of a [Server], or a procedure of a
// [yonder.Server].
type callee interface {
	// newArg returns a pointer for the argument to be decoded into, or nil if it is to be
	// thrown away, and the argument itself, which is that or what it points to.
	newArg() (into any, arg reflect.Value)
	// prepare gives a call that has been read its context, if it is to have one.
	prepare(c *serverCall)
	// undecoded is what reading a call returns when its argument could not be decoded.
	undecoded(c *serverCall, err error) (readable bool, _ error)
	// call does a call and returns its reply.
	call(c *serverCall) (reply any, err error)
}

// newArg returns a pointer for the argument to be decoded into, and the argument itself,
// which is that or what it points to.
func (m *method) newArg() (into any, arg reflect.Value) {
	if m.arg.Kind() == reflect.Pointer {
		arg = reflect.New(m.arg.Elem())
		return arg.Interface(), arg
	}
	p := reflect.New(m.arg)
	return p.Interface(), p.Elem()
}

// newReply returns a pointer to an empty reply. Maps and slices are not nil, which gob
// could not tell the client.
func (m *method) newReply() reflect.Value {
	t := m.reply.Elem()
	v := reflect.New(t)
	switch t.Kind() {
	case reflect.Map:
		v.Elem().Set(reflect.MakeMap(t))
	case reflect.Slice:
		v.Elem().Set(reflect.MakeSlice(t, 0, 0))
	}
	return v
}

func (m *method) prepare(c *serverCall) {
	if m.context {
		c.context(yonder.HandlerContext(c.session.ctx, c.info(), &c.metadata))
	}
}

func (m *method) undecoded(c *serverCall, err error) (bool, error) { return true, err }

// call calls the method.
func (m *method) call(c *serverCall) (any, error) {
	reply := m.newReply()
	err := m.invoke(c.ctx, c.request.ServiceMethod, c.arg, reply)
	if err != nil {
		err = sound(err, func(text *string, v any) error {
			if v != errEndless {
				log.Printf("rpc: an error of %s panicked: %v\n%s", c.request.ServiceMethod, v, debug.Stack())
			}
			if text == nil {
				return panicked(c.request.ServiceMethod)
			}
			return errors.New(*text) // which is all that a stock server asks for
		})
	}
	return reply.Interface(), err
}

// sound returns err, or what otherwise makes of a panic of err's own methods, or of errEndless.
// text is err's; nil: to ask for it is what panicked.
func sound(err error, otherwise func(text *string, v any) error) (same error) {
	var text *string
	defer func() {
		if v := recover(); v != nil {
			same = otherwise(text, v)
		}
	}()
	text = new(err.Error())
	if left := maxWrapped; !ends(err, &left) {
		return otherwise(text, errEndless)
	}
	yonder.CodeOf(err)
	return err
}

// maxWrapped is how many errors one may wrap: of more, nobody asks what they are.
const maxWrapped = 10_000

// errEndless says that an error wraps others without end, which would keep package errors busy.
var errEndless = errors.New("the error wraps too many others")

// ends reports whether an error wraps less than left others.
func ends(err error, left *int) bool {
	for err != nil {
		if *left--; *left < 0 {
			return false
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			for _, inner := range e.Unwrap() {
				if !ends(inner, left) {
					return false
				}
			}
			return true
		default:
			return true
		}
	}
	return true
}

// invoke calls the method. Its panic is an error, and the stack is logged.
func (m *method) invoke(ctx context.Context, name string, arg, reply reflect.Value) (err error) {
	m.calls.Add(1)
	defer func() {
		if v := recover(); v != nil {
			log.Printf("rpc: %s panicked: %v\n%s", name, v, debug.Stack())
			err = panicked(name)
		}
	}()
	var in [4]reflect.Value
	args := append(in[:0], m.receiver)
	if m.context {
		args = append(args, reflect.ValueOf(ctx))
	}
	out := m.fn.Call(append(args, arg, reply))
	err, _ = reflect.TypeAssert[error](out[0])
	return err
}

// panicked is what the caller of a method that panicked is told.
func panicked(name string) error {
	return yonder.Errorf(yonder.Internal, "rpc: %s panicked", name)
}

// find returns the method of a name, or the standard package's words for that there is
// none.
func (server *Server) find(name string) (callee, error) {
	r := server.registry.Load()
	if r != nil {
		if m := r.methods[name]; m != nil {
			return m, nil
		}
	}
	dot := strings.LastIndexByte(name, '.')
	switch {
	case dot < 0:
		return nil, fmt.Errorf("rpc: service/method request ill-formed: %s", name)
	case r == nil || r.services[name[:dot]] == nil:
		return nil, fmt.Errorf("rpc: can't find service %s", name)
	}
	return nil, fmt.Errorf("rpc: can't find method %s", name)
}
