// The client of vscode-jsonrpc, which frames messages by Content-Length, calls the server at the
// address that is the argument.
import assert from 'node:assert/strict'
import net from 'node:net'
import rpc from 'vscode-jsonrpc/node'

const [host, port] = process.argv[2].split(':')
const socket = net.connect({ host, port })
const c = rpc.createMessageConnection(new rpc.StreamMessageReader(socket), new rpc.StreamMessageWriter(socket))
c.listen()

assert.equal(await c.sendRequest('HelloService.Hello', 'vscode'), 'Hello, vscode')
assert.equal(await c.sendRequest('Wire.Name', 0), 'jsonrpc')
assert.equal(await c.sendRequest('subtract', 42, 23), 19)
assert.equal(await c.sendRequest('subtract', rpc.ParameterStructures.byName, { subtrahend: 23, minuend: 42 }), 19)
const text = 'ünïcode\n'.repeat(20000)
assert.equal(await c.sendRequest('echo', text), text)
await assert.rejects(c.sendRequest('Errors.Own'), { code: 7, message: 'own', data: { a: 1 } })
await assert.rejects(c.sendRequest('No.Method'), { code: rpc.ErrorCodes.MethodNotFound })
await assert.rejects(c.sendRequest('subtract', 'x', 1), { code: rpc.ErrorCodes.InvalidParams })
await c.sendNotification('Notes.Note', 'vscode noted')
const many = await Promise.all(Array.from({ length: 50 }, (_, i) => c.sendRequest('subtract', 2 * i, i)))
assert.deepEqual(many, Array.from({ length: 50 }, (_, i) => i))

// The library sends $/cancelRequest, and waits for the answer.
const source = new rpc.CancellationTokenSource()
const waiting = c.sendRequest('Wait.Wait', 0, source.token)
console.log('waiting')
process.stdin.once('data', async () => {
  source.cancel()
  await assert.rejects(waiting, error => { console.log('cancelled', error.code); return error instanceof rpc.ResponseError })
  console.log('vscode-jsonrpc')
  c.dispose()
  socket.end()
  process.stdin.destroy()
})
