package main

import (
	"context"
	"fmt"

	"github.com/yonder-rpc/yonder"
)

// Client is the Service of a server elsewhere.
type Client struct {
	remote struct {
		CalcTwoNumber func(context.Context, Calc) (float64, error)
		GetOperators  func(context.Context) ([]string, error)
	}
}

var _ Service = (*Client)(nil)

// NewClient returns a Client that calls over c.
func NewClient(c *yonder.Client) *Client {
	s := new(Client)
	c.BindService(ServiceName, &s.remote)
	return s
}

func (s *Client) CalcTwoNumber(ctx context.Context, calc Calc) (float64, error) {
	return s.remote.CalcTwoNumber(ctx, calc)
}

func (s *Client) GetOperators(ctx context.Context) ([]string, error) {
	return s.remote.GetOperators(ctx)
}

func client(ctx context.Context, address string) error {
	c, err := yonder.Dial(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close()
	return calculate(ctx, NewClient(c))
}

// calculate does not know where its Service is.
func calculate(ctx context.Context, s Service) error {
	names, err := s.GetOperators(ctx)
	if err != nil {
		return err
	}
	fmt.Println("operators:", names)
	for _, name := range append(names, "%") {
		result, err := s.CalcTwoNumber(ctx, Calc{Number1: 7, Number2: 2, Operator: name})
		if err != nil {
			fmt.Printf("7 %s 2: %v (%v)\n", name, err, yonder.CodeOf(err))
			continue
		}
		fmt.Printf("7 %s 2 = %v\n", name, result)
	}
	return nil
}
