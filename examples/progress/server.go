package main

import (
	"context"
	"fmt"

	"github.com/yonder-rpc/yonder"
)

func server() *yonder.Server {
	srv := new(yonder.Server)
	srv.Register("convert", convert)
	return srv
}

// convert works through a document and reports each page that is done. An error of
// report ends it.
func convert(ctx context.Context, name string, pages int, report func(ctx context.Context, done, of int) error) (string, error) {
	for page := range pages {
		if err := report(ctx, page+1, pages); err != nil {
			return "", fmt.Errorf("page %d of %s: %w", page+1, name, err)
		}
	}
	return name + ".pdf", nil
}
