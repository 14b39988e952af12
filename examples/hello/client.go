package main

import (
	"context"
	"fmt"

	"github.com/yonder-rpc/yonder"
)

func client(ctx context.Context, address string) error {
	c, err := yonder.Dial(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close()

	var hello func(ctx context.Context, name string) (string, error)
	c.Bind("hello", &hello)

	text, err := hello(ctx, "world")
	if err != nil {
		return err
	}
	fmt.Println(text)
	return nil
}
