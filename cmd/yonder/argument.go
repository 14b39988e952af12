package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
)

// arguments makes the arguments of a function of type t, which begins with a context,
// from words of the command line. Functions among them take no word. fail ends the call
// when reading one fails later.
func (c *caller) arguments(t reflect.Type, p *procedure, words []string, fail func(error)) ([]reflect.Value, error) {
	n := len(p.sig.Args)
	least, most := 0, 0 // how many words
	note := ""
	for i, at := range p.sig.Args {
		switch {
		case at.Kind == "func":
			note = "; a function takes none"
		case p.sig.Variadic && i == n-1:
			most = -1
		case at.Kind == "pointer":
			most++
		default:
			most++
			least = most
		}
	}
	if len(words) < least || most >= 0 && len(words) > most {
		return nil, p.usage("it takes %s; %d given%s", counts(least, most), len(words), note)
	}
	var args []reflect.Value
	for i, at := range p.sig.Args {
		v := reflect.New(t.In(i + 1)).Elem()
		var err error
		switch {
		case at.Kind == "func":
			v = c.callback(v.Type(), fail)
		case p.sig.Variadic && i == n-1:
			v.Set(reflect.MakeSlice(v.Type(), len(words), len(words)))
			for j := range words {
				var elem reflect.Value
				if elem, err = c.in.value(v.Type().Elem(), words[j], fail); err != nil {
					return nil, p.argumentError(i+j, p.parameter(i), err)
				}
				v.Index(j).Set(elem)
			}
		case len(words) > 0:
			v, err = c.in.value(v.Type(), words[0], fail)
			words = words[1:]
		}
		if err != nil {
			return nil, p.argumentError(i, p.parameter(i), err)
		}
		args = append(args, v)
	}
	return args, nil
}

// argumentError says that the i-th argument is wrong. A file that cannot be read is not
// an error of usage.
func (p *procedure) argumentError(i int, parameter string, err error) error {
	if local, ok := errors.AsType[localError](err); ok {
		return fmt.Errorf("%s: %w", parameter, local.error)
	}
	if i >= len(p.sig.Args) {
		parameter = fmt.Sprintf("argument %d", i+1)
	}
	return p.usage("%s: %v", parameter, err)
}

// counts says how many arguments there may be; most is -1 if there is no limit.
func counts(least, most int) string {
	switch {
	case most < 0:
		return fmt.Sprintf("%d or more arguments", least)
	case least < most:
		return fmt.Sprintf("%d to %d arguments", least, most)
	case most == 0:
		return "no arguments"
	case most == 1:
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", most)
}

// input is where arguments come from that are not on the command line.
type input struct {
	stdin io.Reader
	used  bool // stdin
	files []io.Closer
}

func (in *input) close() {
	for _, f := range in.files {
		f.Close()
	}
}

// open returns what a word refers to, or nil if it stands for itself.
func (in *input) open(word string) (io.Reader, error) {
	if word == "-" {
		if in.used {
			return nil, errors.New("standard input can be only one argument")
		}
		in.used = true
		return in.stdin, nil
	}
	name, ok := strings.CutPrefix(word, "@")
	if !ok {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, localError{err}
	}
	in.files = append(in.files, f)
	return f, nil
}

// value returns the argument of type t that a word stands for.
func (in *input) value(t reflect.Type, word string, fail func(error)) (reflect.Value, error) {
	r, err := in.open(word)
	if err != nil {
		return reflect.Value{}, err
	}
	v := reflect.New(t).Elem()
	switch {
	case t == readerType && r != nil:
		v.Set(reflect.ValueOf(&watched{r, fail}))
		return v, nil
	case t == readerType:
		v.Set(reflect.ValueOf(strings.NewReader(word)))
		return v, nil
	case t.Kind() == reflect.Func && r != nil:
		return lines(t, r, fail), nil
	case t.Kind() == reflect.Func:
		return list(t, word)
	case r == nil:
		return parse(t, word)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return v, localError{err}
	}
	base := t
	for base.Kind() == reflect.Pointer {
		base = base.Elem()
	}
	switch {
	case base == bytesType:
		return v, setBytes(v, content)
	case base.Kind() == reflect.String:
		return v, assign(v, string(content))
	}
	v, err = parse(t, strings.TrimSpace(string(content)))
	if err != nil {
		err = fmt.Errorf("%s: %w", sourceName(word), err)
	}
	return v, err
}

func sourceName(word string) string {
	if word == "-" {
		return "standard input"
	}
	return strings.TrimPrefix(word, "@")
}

// watched is a reader whose failure ends the call.
type watched struct {
	r    io.Reader
	fail func(error)
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if err != nil && err != io.EOF {
		w.fail(fmt.Errorf("reading the argument: %w", err))
	}
	return n, err
}

// list returns an iterator of type t over the elements of a JSON array.
func list(t reflect.Type, word string) (reflect.Value, error) {
	values, err := parse(reflect.SliceOf(t.In(0).In(0)), word)
	if err != nil {
		return values, fmt.Errorf("a stream is a JSON array, or -, or @FILE with a value a line: %w", err)
	}
	return iterator(t, func(yield func(reflect.Value, error) bool) {
		for i := range values.Len() {
			if !yield(values.Index(i), nil) {
				return
			}
		}
	}), nil
}

// lines returns an iterator of type t over the values in r, one a line. It ends with the
// stream.
func lines(t reflect.Type, r io.Reader, fail func(error)) reflect.Value {
	elem := t.In(0).In(0)
	skip := elem.Kind() != reflect.String && elem != bytesType // blank lines
	return iterator(t, func(yield func(reflect.Value, error) bool) {
		broken := func(err error) {
			fail(err)
			yield(reflect.Zero(elem), err)
		}
		buffered := bufio.NewReader(r)
		for n := 1; ; n++ {
			line, end := buffered.ReadString('\n')
			if end != nil && end != io.EOF {
				broken(fmt.Errorf("reading the argument: %w", end))
				return
			}
			if line == "" && end == io.EOF {
				return
			}
			line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
			if skip && strings.TrimSpace(line) == "" {
				continue
			}
			v, err := parse(elem, line)
			if err != nil {
				broken(inputError{fmt.Errorf("line %d of the stream: %w", n, err)})
				return
			}
			if !yield(v, nil) {
				return
			}
		}
	})
}

// iterator returns seq as one of type t, an iter.Seq2 of values and errors.
func iterator(t reflect.Type, seq func(yield func(reflect.Value, error) bool)) reflect.Value {
	return reflect.MakeFunc(t, func(in []reflect.Value) []reflect.Value {
		seq(func(v reflect.Value, err error) bool {
			return in[0].Call([]reflect.Value{v, reflect.ValueOf(&err).Elem()})[0].Bool()
		})
		return nil
	})
}
