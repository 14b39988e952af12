package auth

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/layers"
)

// Credentials are of the process at the other end of a Unix socket, as they were when it
// connected. A process number may have become another's since.
type Credentials struct {
	PID      int // in this process's namespace; 0: it is not in that
	UID, GID int
}

// Socket is a [Source]: who calls over a Unix socket is the user of the process at its other end,
// "uid:1000", and that one's group, "gid:1000". The Detail is a [Credentials]. Of other connections
// it knows nothing, nor anywhere but on Linux, where [PeerCredentials] says so.
func Socket(_ context.Context, info yonder.CallInfo) (*Identity, error) {
	conn, ok := layers.Find[*net.UnixConn](info.Conn)
	if !ok {
		return nil, nil
	}
	c, err := credentials(conn)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &Identity{Names: []string{fmt.Sprintf("uid:%d", c.UID), fmt.Sprintf("gid:%d", c.GID)}, Detail: c}, nil
}

// PeerCredentials returns those of the process at the other end of a connection, which is
// [yonder.CallInfo.Conn]. The error is [errors.ErrUnsupported] if it is no Unix socket, or this is
// not Linux.
func PeerCredentials(conn any) (Credentials, error) {
	c, ok := layers.Find[*net.UnixConn](conn)
	if !ok {
		return Credentials{}, fmt.Errorf("auth: peer credentials of what is no Unix socket: %w", errors.ErrUnsupported)
	}
	return credentials(c)
}

// Local is a [Source]: who calls in the same process, by [yonder.Local], is "local".
func Local(_ context.Context, info yonder.CallInfo) (*Identity, error) {
	if info.Protocol != "local" {
		return nil, nil
	}
	return &Identity{Names: []string{"local"}}, nil
}
