// Package yonder calls Go functions in another process.
//
// A server registers functions, any functions. A client binds a local func variable to
// each that it wants, and calls that. There is no interface language, and no code to
// generate: the type of the function is the contract, and both ends check it on the
// first call.
//
// This page is a tour in the order in which one meets things. The folder examples has a
// program for each, and SPEC.md is the protocol.
//
// # A server
//
// The zero [Server] is ready to use. Its fields are its configuration, as in
// [net/http.Server].
//
//	func queryUser(ctx context.Context, id int) (User, error) { ... }
//
//	var srv yonder.Server
//	srv.Register("queryUser", queryUser)
//	err := srv.ListenAndServe("127.0.0.1:1234")
//
// [Server.RegisterService] registers the methods of a value, each as "name.Method", and
// returns those that it left out. [Server.Add] takes a [Procedure], which has the names
// of the parameters and a comment besides. All of them panic if a function is
// unsuitable, and say which parameter is, why, and what to use instead: that is a mistake
// in the program, found when it starts.
//
// # A client
//
//	client, err := yonder.Dial(ctx, "127.0.0.1:1234")
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//
//	var query func(ctx context.Context, id int) (User, error)
//	client.Bind("queryUser", &query)
//	user, err := query(ctx, 1)
//
// A bound function must end in error, because a remote call can fail, whether or not the
// procedure returns one. [Client.BindService] fills a struct of funcs, and [Invoke] calls
// without binding. What a caller believes of the function need not be what it is, word
// for word: an int64 fits an int, and a struct may lack a field. If it does not fit, the
// call fails with both signatures, side by side. [Client.Check] finds out before the
// first call.
//
// A client may be used by many goroutines at once; their calls share a connection, and
// none waits for another. When the connection is lost, the calls in flight fail with
// [Unavailable], and the next call connects again; with [Dialer.Resume] and
// [Server.Resume] they go on where they were. A [Dialer] has a client's
// configuration.
//
// # Functions
//
// A function that crosses a connection has the form
//
//	func([ctx context.Context,] args...) (results..., [error])
//
// with any number of arguments and results, the last argument variadic if you like. A
// method of the shape that net/rpc wants, func(arg A, reply *R) error, counts as one with
// the result R.
//
//	plain values               encoded by the codec: whatever encoding/json would take, and
//	                           more, such as NaN and maps with keys that are not strings
//	iter.Seq2[T, error]        a stream, as an argument or a result, or both
//	iter.Seq[T]                the same, for those who need not hear of errors
//	io.Reader, io.ReadCloser   a stream of bytes
//	func(...) (..., error)     a callback, only as an argument
//
// Pointers, readers and functions that are nil arrive so, and an iterator among the arguments; as a result
// that is one without elements, since its caller will range over it. When a handler returns an error, its
// other results do not travel.
//
// A chan does not cross: use an iterator. A handler's []byte result of more than 512 KiB is
// sent from where it is, so what it is part of must not be changed after the return.
//
// # Contexts
//
// The handler's context ends when the caller's does: by its deadline, which travels as
// the time that remains, or because the caller gave up. [context.Cause] tells these apart
// from a lost connection, [ErrConnectionLost], and a server that is closed,
// [ErrServerClosed]. A caller whose context ends returns at once, whatever the network
// does. Values do not travel in contexts, but [Metadata] does: see [WithMetadata],
// [InfoFrom], and, for the way back, [SetReply] and [WithReply].
//
// # Errors
//
// The error of a bound function is an [*Error], with a [Code] to act on:
//
//	switch yonder.CodeOf(err) {
//	case yonder.NotFound:
//		...
//	case yonder.Unavailable:
//		...
//	}
//
// A handler gives the code with [Errorf]. An error without one arrives with its text and
// as [Unknown], or as what [CodeOf] knows it for. [errors.Is] and [errors.As] work across the connection, for errors that
// are wrapped or joined, too: for the contexts' errors and those of packages io, io/fs
// and net without further ado, for your own if both ends list them by name, in
// [Server.Errors] and [Dialer.Errors]. [IsRemote] says whether the other end reported
// the failure or this one inferred it. A handler that panics is an [Internal] error for
// its caller and a stack in the server's log.
//
// # Streams, readers, callbacks
//
// A function that returns an iterator streams:
//
//	func count(ctx context.Context, n int) iter.Seq2[int, error]
//
//	var count func(ctx context.Context, n int) (iter.Seq2[int, error], error)
//	client.Bind("count", &count)
//	numbers, err := count(ctx, 1_000_000)
//	...
//	for n, err := range numbers {
//		if err != nil {
//			return err
//		}
//		if enough(n) {
//			break // count is told to stop
//		}
//	}
//
// An argument that is an iterator streams the other way. Readers do the same for bytes.
// Each has a window: a consumer that stops reading holds up its own producer, and
// nothing else. A stream can be ranged over once. It lives as long as the context of the
// call that returned it.
//
// [Stream] may stand for iter.Seq2, at either end or both. Where many small structs are
// streamed it is faster, because it needs no reflection.
//
// A function among the arguments runs at the caller's when the handler calls it. It is
// valid until the call has ended.
//
// # Both ways
//
// Both ends of a connection may register and call. A client's procedures are in the
// Server of its [Dialer]; a handler calls them through [PeerFrom]:
//
//	func join(ctx context.Context, name string) {
//		var hear func(ctx context.Context, text string) error
//		yonder.PeerFrom(ctx).Bind("hear", &hear)
//		...
//	}
//
// # What calls have in common
//
// A [Call] is a name, arguments and results, and a [Handler] does one. [Client.Call] and
// [Server.Call] are Handlers both, so an [Interceptor], which wraps a Handler, serves
// either end: in [Dialer.Interceptors] and [Server.Interceptors].
//
//	func logged(next yonder.Handler) yonder.Handler {
//		return func(ctx context.Context, call *yonder.Call) error {
//			began := time.Now()
//			err := next(ctx, call)
//			slog.Info("call", "procedure", call.Procedure, "took", time.Since(began), "error", err)
//			return err
//		}
//	}
//
// # Watching
//
// [Server.Stats] and [Client.Stats] say what has been done: connections and bytes, and calls by
// procedure if Measure is set. [AccessLog] is an interceptor that logs calls. [Server.Health] says
// whether calls are wanted, as the procedure "yonder.health" does, which every server has. Package
// web has both over HTTP, and yonderotel, a module of its own, OpenTelemetry. An interceptor that
// must know when the streams of a call have ended has [Call.OnEnd].
//
// # The end
//
// [Server.Shutdown] takes no more calls, lets those in flight end, and closes the
// connections; [Server.Close] does not wait for them. [Limits] bound what the other end
// of a connection may cost, from the size of a message to the number of calls. They have
// defaults; lower them where peers are not trusted.
//
// # TLS and other transports
//
// Anything that is an [io.ReadWriteCloser] carries calls: [Server.ServeConn] and
// [NewClient] take a pipe as well as a socket. For TLS, give [Server.Serve] what
// tls.NewListener returns and [Dialer.NetDial] a tls.Dialer's DialContext, or have package
// tlsconn do both. Package auth has interceptors that find out who calls and decide what they may.
//
// # In the same process, and in tests
//
// [Local] returns a client of a server in the same process, which encodes nothing and is
// otherwise like any other. Package yondertest has one over a pipe in memory, which
// encodes everything, and works in the bubbles of [testing/synctest].
//
// # Where speed counts
//
// [Handle] and [Remote] register and bind functions of one argument and one result
// without reflection in the call.
//
// # Where bytes count
//
// Values are encoded as [CBOR], or as [JSON] if [Dialer.Codec] says so and [Server.Codecs]
// lists it. Programs that do not mention JSON are smaller. A [Compression] that both ends have
// makes large messages smaller; package zstd has one.
package yonder
