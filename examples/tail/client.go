package main

import (
	"context"
	"fmt"
	"iter"

	"github.com/yonder-rpc/yonder"
)

func client(ctx context.Context, address string) error {
	c, err := yonder.Dial(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close()

	var log struct {
		Append func(ctx context.Context, line string) error
		Tail   func(ctx context.Context) (iter.Seq2[string, error], error)
	}
	c.BindService("Log", &log)

	lines, err := log.Tail(ctx)
	if err != nil {
		return err
	}
	if err := log.Append(ctx, "line 1"); err != nil {
		return err
	}
	n := 1
	for line, err := range lines {
		if err != nil {
			return err // such as a lost connection
		}
		fmt.Println(line)
		if n++; n > 5 {
			break // the server stops, too
		}
		if err := log.Append(ctx, fmt.Sprint("line ", n)); err != nil {
			return err
		}
	}
	return nil
}
