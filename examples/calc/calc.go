package main

import "context"

// ServiceName is what both ends call the service.
const ServiceName = "CalcService"

// Service is a calculator.
type Service interface {
	// CalcTwoNumber returns the result of an operation on two numbers.
	CalcTwoNumber(ctx context.Context, calc Calc) (float64, error)
	// GetOperators returns the operators there are.
	GetOperators(ctx context.Context) ([]string, error)
}

// Calc is an operation on two numbers.
type Calc struct {
	Number1, Number2 float64
	Operator         string
}
