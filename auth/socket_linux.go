package auth

import (
	"fmt"
	"net"
	"syscall"
)

// credentials asks the kernel: SO_PEERCRED, unix(7).
func credentials(conn *net.UnixConn) (c Credentials, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return c, fmt.Errorf("auth: peer credentials: %w", err)
	}
	var ucred *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		ucred, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return c, fmt.Errorf("auth: peer credentials: %w", err)
	}
	return Credentials{PID: int(ucred.Pid), UID: int(ucred.Uid), GID: int(ucred.Gid)}, nil
}
