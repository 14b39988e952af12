package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io"
	"io/fs"
	"iter"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/yonder-rpc/yonder"
)

// Calc is a calculation of two numbers.
type Calc struct {
	Number1, Number2 float64
	Operator         string
}

// User is a user of the demo.
type User struct {
	Name string
	Age  int
}

// demoProcedures returns what the demo serves. subtract, sum, update, notify_hello and
// get_data are those of the examples in section 7 of the JSON-RPC 2.0 specification.
func demoProcedures() []yonder.Procedure {
	return []yonder.Procedure{
		{
			Name: "HelloService.Hello", Func: hello, Params: []string{"name"},
			Doc: "Hello greets somebody by name.", Idempotent: true,
		},
		{
			Name: "CalcService.CalcTwoNumber", Func: calcTwoNumber, Params: []string{"calc"},
			Doc:        "CalcTwoNumber returns Number1 Operator Number2. An operator that GetOperators does not list is an error.",
			Idempotent: true,
		},
		{
			Name: "CalcService.GetOperators", Func: getOperators,
			Doc: "GetOperators lists the operators that CalcTwoNumber knows, sorted.", Idempotent: true,
		},
		{
			Name: "queryUser", Func: queryUser, Params: []string{"uid"},
			Doc: "queryUser returns the user with an id, or the error not_found. There are 0, 1 and 2.", Idempotent: true,
		},
		{
			Name: "subtract", Func: subtract, Params: []string{"minuend", "subtrahend"},
			Doc: "subtract returns minuend - subtrahend.", Idempotent: true,
		},
		{
			Name: "sum", Func: sum, Params: []string{"numbers"},
			Doc: "sum adds up any number of numbers.", Idempotent: true,
		},
		{
			Name: "update", Func: func(values ...int) {}, Params: []string{"values"},
			Doc: "update takes numbers and has no result.",
		},
		{
			Name: "notify_hello", Func: func(value int) {}, Params: []string{"value"},
			Doc: "notify_hello takes a number and has no result.",
		},
		{
			Name: "get_data", Func: func() []any { return []any{"hello", 5} },
			Doc: `get_data returns ["hello", 5].`, Idempotent: true,
		},
		{
			Name: "countdown", Func: countdown, Params: []string{"from", "every"},
			Doc: "countdown yields from, from-1 and so on until 0, with a pause between them: a stream.", Idempotent: true,
		},
		{
			Name: "sha256", Func: hashOf, Params: []string{"r"},
			Doc: "sha256 returns the hash of what it reads, in hex. It holds no more than a piece of that in memory.", Idempotent: true,
		},
		{
			Name: "walk", Func: walk, Params: []string{"dir", "visit"},
			Doc: "walk calls visit with the path and the size of each file below dir, and returns how many there are. " +
				`"." is all of the small tree that the demo brings along. An error of visit ends the walk.`,
			Idempotent: true,
		},
	}
}

func hello(name string) string { return "Hello, " + name }

func operators() map[string]func(a, b float64) float64 {
	return map[string]func(a, b float64) float64{
		"+": func(a, b float64) float64 { return a + b },
		"-": func(a, b float64) float64 { return a - b },
		"*": func(a, b float64) float64 { return a * b },
		"/": func(a, b float64) float64 { return a / b },
	}
}

func calcTwoNumber(calc Calc) (float64, error) {
	op, ok := operators()[calc.Operator]
	if !ok {
		return 0, yonder.Errorf(yonder.InvalidArgument, "Illegal Operator")
	}
	return op(calc.Number1, calc.Number2), nil
}

func getOperators() []string { return slices.Sorted(maps.Keys(operators())) }

func queryUser(uid int) (User, error) {
	users := []User{{"Foo", 12}, {"Bar", 13}, {"Joe", 14}}
	if uid < 0 || uid >= len(users) {
		return User{}, yonder.Errorf(yonder.NotFound, "user with id %d does not exist", uid)
	}
	return users[uid], nil
}

func subtract(minuend, subtrahend int) int { return minuend - subtrahend }

func sum(numbers ...int) int {
	total := 0
	for _, n := range numbers {
		total += n
	}
	return total
}

func countdown(ctx context.Context, from int, every time.Duration) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		if from < 0 {
			yield(0, yonder.Errorf(yonder.InvalidArgument, "cannot count down from %d: it is below 0", from))
			return
		}
		for n := from; n >= 0; n-- {
			if !yield(n, nil) || n == 0 {
				return
			}
			pause := time.NewTimer(every)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				yield(0, context.Cause(ctx))
				return
			}
		}
	}
}

func hashOf(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// tree is what walk walks.
//
//go:embed tree
var tree embed.FS

func walk(dir string, visit func(path string, size int64) error) (int, error) {
	root, err := fs.Sub(tree, "tree")
	if err != nil {
		return 0, err
	}
	files := 0
	err = fs.WalkDir(root, path.Clean(dir), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		files++
		return visit(name, info.Size())
	})
	return files, err
}
