//go:build !linux

package auth

import (
	"errors"
	"fmt"
	"net"
	"runtime"
)

func credentials(*net.UnixConn) (Credentials, error) {
	return Credentials{}, fmt.Errorf("auth: peer credentials on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
