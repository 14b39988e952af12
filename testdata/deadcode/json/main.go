// Json is a server that accepts the codec JSON. TestDeadCode looks at what the linker makes
// of it.
package main

import "github.com/yonder-rpc/yonder"

func main() {
	srv := yonder.Server{Codecs: []yonder.Codec{yonder.JSON}}
	srv.ListenAndServe("127.0.0.1:0")
}
