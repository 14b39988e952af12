package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/yonder-rpc/yonder"
)

func client(ctx context.Context, address string) error {
	c, err := yonder.Dial(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close()

	var convert func(ctx context.Context, name string, pages int, report func(ctx context.Context, done, of int) error) (string, error)
	c.Bind("convert", &convert)

	file, err := convert(ctx, "novel", 4, func(_ context.Context, done, of int) error {
		fmt.Printf("%d%%\n", 100*done/of)
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Println("done:", file)

	// What the callback returns, the server gets, and may return in turn.
	_, err = convert(ctx, "epic", 1000, func(_ context.Context, done, of int) error {
		if done == 3 {
			return errors.New("this takes too long")
		}
		return nil
	})
	fmt.Println("failed:", err)
	return nil
}
