// jayson's clients call the server at the address that is the argument.
import assert from 'node:assert/strict'
import { promisify } from 'node:util'
import jayson from 'jayson'
import WebSocket from 'ws'

const [host, port] = process.argv[2].split(':')
const ws = new WebSocket(`ws://${host}:${port}/jsonrpc`)
await new Promise((resolve, reject) => ws.on('open', resolve).on('error', reject))

const clients = {
  tcp: options => jayson.Client.tcp({ host, port, ...options }),
  http: options => jayson.Client.http({ host, port, path: '/jsonrpc', ...options }),
  websocket: options => jayson.Client.websocket({ ws, ...options }),
}

for (const [name, client] of Object.entries(clients)) {
  const c = client()
  const request = promisify(c.request.bind(c))
  const ask = async (...args) => {
    const answer = await request(...args)
    assert.equal(answer.jsonrpc, '2.0', name)
    return answer
  }
  assert.equal((await ask('HelloService.Hello', ['jayson'])).result, 'Hello, jayson', name)
  assert.equal((await ask('Wire.Name', [0])).result, 'jsonrpc', name)
  assert.equal((await ask('subtract', { subtrahend: 23, minuend: 42 })).result, 19, name)
  const text = 'ünïcode\n'.repeat(20000)
  assert.equal((await ask('echo', [text])).result, text, name)

  const { error } = await ask('Errors.Own', [])
  assert.deepEqual(error, { code: 7, message: 'own', data: { a: 1 } }, name)
  assert.equal((await ask('No.Method', [])).error.code, -32601, name)
  assert.equal((await ask('subtract', ['x', 1])).error.code, -32602, name)
  assert.equal((await ask('Errors.NotFound', ['tea'])).error.data.code, 'not_found', name)

  // A notification has no id.
  await request('Notes.Note', [`${name} noted`], null)

  const batch = await request([
    c.request('subtract', [5, 3], 'a'),
    c.request('Notes.Note', [`${name} in a batch`], null),
    c.request('No.Method', [], 'b'),
    c.request('HelloService.Hello', ['batch'], 'c'),
  ])
  const byID = Object.fromEntries(batch.map(answer => [answer.id, answer]))
  assert.equal(batch.length, 3, name)
  assert.equal(byID.a.result, 2, name)
  assert.equal(byID.b.error.code, -32601, name)
  assert.equal(byID.c.result, 'Hello, batch', name)

  const many = await Promise.all(Array.from({ length: 50 }, (_, i) => ask('subtract', [2 * i, i])))
  assert.deepEqual(many.map(answer => answer.result), Array.from({ length: 50 }, (_, i) => i), name)

  if (name !== 'websocket') { // over those the library takes no answers of version 1.0
    const old = client({ version: 1 })
    const answer = await promisify(old.request.bind(old))('HelloService.Hello', ['1.0'])
    assert.deepEqual(Object.keys(answer), ['id', 'result', 'error'], name)
    assert.equal(answer.result, 'Hello, 1.0', name)
    assert.equal(answer.error, null, name)
  }
  console.log(name)
}
ws.close()
