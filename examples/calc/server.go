package main

import (
	"context"
	"maps"
	"slices"

	"github.com/yonder-rpc/yonder"
)

var operators = map[string]func(a, b float64) float64{
	"+": func(a, b float64) float64 { return a + b },
	"-": func(a, b float64) float64 { return a - b },
	"*": func(a, b float64) float64 { return a * b },
	"/": func(a, b float64) float64 { return a / b },
}

func server() *yonder.Server {
	srv := new(yonder.Server)
	srv.RegisterService(ServiceName, calculator{})
	return srv
}

// calculator is the Service itself.
type calculator struct{}

var _ Service = calculator{}

func (calculator) CalcTwoNumber(_ context.Context, calc Calc) (float64, error) {
	operator, ok := operators[calc.Operator]
	if !ok {
		return 0, yonder.Errorf(yonder.InvalidArgument, "Illegal Operator")
	}
	return operator(calc.Number1, calc.Number2), nil
}

func (calculator) GetOperators(context.Context) ([]string, error) {
	return slices.Sorted(maps.Keys(operators)), nil
}
