/*
Package rpc is a drop-in for the standard library's net/rpc: the same API, the same bytes,
the same texts of errors. Stock clients and servers are peers in both directions, over TCP
and over HTTP.

To move a program, change the import path:

	import "github.com/yonder-rpc/yonder/net/rpc" // was "net/rpc"

and, if it uses net/rpc/jsonrpc, that one too. Peers need not move at the same time.

# What you get

Without another change: a panic in a method is an error of its call and not the end of the
process; what a peer claims costs no memory before it has arrived; an argument that gob
cannot encode fails its call and not the connection; callers share system calls; and a value
whose encoding method is its pointer's, such as a big.Int or a url.URL, can be an argument as it
is, which the standard client takes only by pointer.

With one:

  - [Client.CallContext] and [Client.GoContext] return when their context ends.
  - A method may take a context first, func (t *T) M(ctx context.Context, arg A, reply *R)
    error. That ends with the caller's deadline, with the caller's own context, and when the
    client sends no more; [yonder.InfoFrom] tells the metadata of [yonder.WithMetadata].
    So a type whose methods of that form were passed over before now offers them.
  - A method may return a [*yonder.Error], whose code [yonder.CodeOf] finds in the caller's.
  - [Server.Shutdown] lets calls in flight end. [Server.MaxMessage], [Server.MaxCalls] and
    [Dialer.MaxMessage] bound what a peer may cost.
  - [Server.BadReplyIsError] and [Server.EmptyErrorIsError] mend what the standard package's
    own tests insist on.

# What you lose

A value that is nested deeper than 50,000 levels, such as a linked list of as many nodes, fails
its call: gob takes stack for each level, and one that is full ends the process.

# Beside package yonder

[Protocol] has a [yonder.Server] answer net/rpc's clients on the port that speaks yonder's own
protocol, and [Connect] has yonder's clients call net/rpc's servers. The page docs/migration.md
goes all the way.

# The wire

A call is two gob values, a [Request] and the argument; an answer is a [Response] and the
reply. [Client.Call] and [Client.Go] send exactly that, and so does CallContext if its
context cannot end, has no deadline and no metadata. Otherwise the header is of another type
with the same fields and more: Timeout, Metadata and Features. Stock peers pass over fields
they do not know. Answers have Code and Metadata when there are any.

A server that first sees Features on a connection answers with one Response to no call, with
Features of its own and the Seq 1<<64-1, which clients pass over. After that the client may
call _goRPC_.Cancel with the Seq of a call that nobody waits for any more. Other servers are
never sent that call.
*/
package rpc
