// Package jsonrpc serves and calls yonder's procedures by JSON-RPC, versions 1.0 and
// 2.0: over streams of bytes, HTTP and WebSockets.
//
// # A server
//
// [Protocol] shares a port with yonder's own protocol. Connections, over TCP or a Unix
// socket, are told apart by their first bytes:
//
//	srv.Protocols = []yonder.Protocol{jsonrpc.Protocol}
//	err := srv.ListenAndServe("127.0.0.1:1234")
//
//	$ echo '{"method":"HelloService.Hello","params":["JSON-RPC"],"id":1}' | nc -N localhost 1234
//	{"id":1,"result":"Hello, JSON-RPC","error":null}
//
// [Handler] is an [net/http.Handler], for POST and for WebSockets at one URL:
//
//	http.Handle("/jsonrpc", jsonrpc.Handler(&srv))
//
//	$ curl --data '{"jsonrpc":"2.0","method":"subtract","params":[42,23],"id":1}' localhost:8080/jsonrpc
//	{"jsonrpc":"2.0","result":19,"id":1}
//
// [Serve] serves one connection, such as [Stdio]. A [Config] has what can be set.
//
// Version 2.0 is kept to the letter. A request without a member "jsonrpc" is of version
// 1.0 and answered as Go's net/rpc/jsonrpc does.
//
// # Parameters and results
//
// Parameters are given as an array, or as an object by the names of
// [yonder.Procedure.Params]. A procedure whose only argument is a struct or a map takes
// the object itself, too, and one whose only argument is a [Params] takes anything. The
// result of a procedure that has none is null, and of one that has several an array.
//
// # A client
//
//	client, err := jsonrpc.Dial(ctx, "tcp://127.0.0.1:1234") // or unix, http, https, ws, wss
//
// The client is a [yonder.Client] like any other: Bind, BindService, Invoke, Notify,
// contexts, metadata, streams among the results. [Dialer.Dial] says what differs. Its
// calls work with servers that are no yonder.
//
// # Errors
//
// A [yonder.Code] becomes a number, and what errors.Is and errors.As find crosses in the
// error's data. A handler that wants another number returns an [*Error], and a caller
// finds one in the error of a call, with what was written.
//
// README.md in this package's folder describes what goes over the wire: streams, which
// are subscriptions, cancelling, deadlines and metadata, for who writes a client in
// another language.
package jsonrpc
