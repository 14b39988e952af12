// Servers of npm's libraries. Where they listen is written as JSON; they end with the standard
// input.
import http from 'node:http'
import net from 'node:net'
import jayson from 'jayson'
import { Server } from 'rpc-websockets'
import rpc from 'vscode-jsonrpc/node'

const listen = server => new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(`127.0.0.1:${server.address().port}`)))
const note = text => console.log('note', text)

const methods = new jayson.Server({
  subtract: new jayson.Method((args, done) => {
    const [a, b] = Array.isArray(args) ? args : [args.minuend, args.subtrahend]
    done(null, a - b)
  }),
  echo: (args, done) => done(null, args[0]),
  fail: (args, done) => done({ code: 7, message: 'own', data: { a: 1 } }),
  note: (args, done) => { note(args[0]); done(null, null) },
})

const lsp = net.createServer(socket => {
  const c = rpc.createMessageConnection(new rpc.StreamMessageReader(socket), new rpc.StreamMessageWriter(socket))
  c.onRequest('subtract', (a, b) => typeof a === 'object' ? a.minuend - a.subtrahend : a - b)
  c.onRequest('echo', v => v)
  c.onRequest('fail', () => new rpc.ResponseError(7, 'own', { a: 1 }))
  c.onRequest('wait', (...args) => new Promise(resolve => {
    note('waiting')
    args.at(-1).onCancellationRequested(() => { note('cancelled'); resolve(null) })
  }))
  c.onNotification('note', note)
  c.listen()
})

const sockets = http.createServer()
const ws = new Server({ server: sockets })
ws.register('subtract', p => Array.isArray(p) ? p[0] - p[1] : p.minuend - p.subtrahend)
ws.register('echo', p => p[0])
ws.register('fail', () => { throw { code: 7, message: 'own', data: { a: 1 } } })
ws.register('note', p => note(p[0]))

console.log(JSON.stringify({
  'jayson-tcp': await listen(methods.tcp()),
  'jayson-http': await listen(methods.http()),
  'vscode-jsonrpc': await listen(lsp),
  'rpc-websockets': await listen(sockets),
}))
process.stdin.resume().on('end', () => process.exit(0))
