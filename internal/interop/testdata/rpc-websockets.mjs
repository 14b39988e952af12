// The client of rpc-websockets calls the server at the address that is the argument.
import assert from 'node:assert/strict'
import { Client } from 'rpc-websockets'

const c = new Client(`ws://${process.argv[2]}/jsonrpc`, { reconnect: false })
await new Promise((resolve, reject) => { c.on('open', resolve); c.on('error', reject) })

assert.equal(await c.call('HelloService.Hello', ['rpc-websockets']), 'Hello, rpc-websockets')
assert.equal(await c.call('Wire.Name', [0]), 'jsonrpc')
assert.equal(await c.call('subtract', { subtrahend: 23, minuend: 42 }), 19)
const text = 'ünïcode\n'.repeat(20000)
assert.equal(await c.call('echo', [text]), text)
await assert.rejects(c.call('Errors.Own'), { code: 7, message: 'own', data: { a: 1 } })
await assert.rejects(c.call('No.Method'), { code: -32601 })
await assert.rejects(c.call('subtract', ['x', 1]), { code: -32602 })
await c.notify('Notes.Note', ['rpc-websockets noted'])
const many = await Promise.all(Array.from({ length: 50 }, (_, i) => c.call('subtract', [2 * i, i])))
assert.deepEqual(many, Array.from({ length: 50 }, (_, i) => i))
// Who goes away with a call in flight is missed.
c.call('Wait.Wait', [0]).catch(() => {})
console.log('rpc-websockets')
process.stdin.once('data', () => process.exit(0))
