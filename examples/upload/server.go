package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"

	"github.com/yonder-rpc/yonder"
)

// Receipt is what the server has made of a file.
type Receipt struct {
	Name   string
	Size   int64
	SHA256 string
}

func server() *yonder.Server {
	srv := new(yonder.Server)
	srv.Register("upload", upload)
	return srv
}

// upload reads as fast as it can use the bytes. The client reads its file no faster.
func upload(name string, content io.Reader) (Receipt, error) {
	hash := sha256.New()
	size, err := io.Copy(hash, content)
	if err != nil {
		return Receipt{}, err
	}
	return Receipt{name, size, hex.EncodeToString(hash.Sum(nil))}, nil
}
