package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/yonder-rpc/yonder"
)

func client(ctx context.Context, address string) error {
	c, err := yonder.Dial(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close()

	var upload func(ctx context.Context, name string, content io.Reader) (Receipt, error)
	c.Bind("upload", &upload)

	// Any reader will do: an *os.File, the body of an HTTP request, 16 MiB of noise.
	noise := io.LimitReader(rand.NewChaCha8([32]byte{}), 16<<20)
	hash := sha256.New()
	receipt, err := upload(ctx, "noise.bin", io.TeeReader(noise, hash))
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d bytes, %s\n", receipt.Name, receipt.Size, receipt.SHA256)
	if receipt.SHA256 != hex.EncodeToString(hash.Sum(nil)) {
		return fmt.Errorf("the server has received something else: %x was sent", hash.Sum(nil))
	}
	fmt.Println("the sums agree")
	return nil
}
