// A client of the native protocol in another language. It knows what SPEC.md says, and
// nothing else: if it needs more, that is a bug there. It checks the server of
// TestSpecSuffices, which runs it:
//
//	node client.mjs PORT cbor|json
import assert from "node:assert/strict";
import net from "node:net";

// Codecs. Each decodes one value and says where it ends.

const cbor = {
  encode(v) {
    const head = (major, n) => {
      if (n < 24) return Buffer.from([(major << 5) | n]);
      if (n < 0x100) return Buffer.from([(major << 5) | 24, n]);
      const b = Buffer.alloc(n < 0x10000 ? 3 : n < 0x100000000 ? 5 : 9);
      b[0] = (major << 5) | { 3: 25, 5: 26, 9: 27 }[b.length];
      if (b.length === 3) b.writeUInt16BE(n, 1);
      else if (b.length === 5) b.writeUInt32BE(n, 1);
      else b.writeBigUInt64BE(BigInt(n), 1);
      return b;
    };
    if (v === null) return Buffer.from([0xf6]);
    if (typeof v === "boolean") return Buffer.from([v ? 0xf5 : 0xf4]);
    if (Number.isInteger(v)) return v < 0 ? head(1, -1 - v) : head(0, v);
    if (typeof v === "number") {
      const b = Buffer.alloc(9);
      b[0] = 0xfb;
      b.writeDoubleBE(v, 1);
      return b;
    }
    if (typeof v === "string") return Buffer.concat([head(3, Buffer.byteLength(v)), Buffer.from(v)]);
    if (Buffer.isBuffer(v)) return Buffer.concat([head(2, v.length), v]);
    if (Array.isArray(v)) return Buffer.concat([head(4, v.length), ...v.map(cbor.encode)]);
    const entries = Object.entries(v);
    return Buffer.concat([head(5, entries.length), ...entries.flatMap((e) => e.map(cbor.encode))]);
  },
  decode(b, at) {
    const major = b[at] >> 5, low = b[at] & 31;
    at++;
    let n = low;
    if (low === 24) n = b[at++];
    else if (low === 25) (n = b.readUInt16BE(at)), (at += 2);
    else if (low === 26) (n = b.readUInt32BE(at)), (at += 4);
    else if (low === 27) (n = Number(b.readBigUInt64BE(at))), (at += 8);
    switch (major) {
      case 0: return [n, at];
      case 1: return [-1 - n, at];
      case 2: return [b.subarray(at, at + n), at + n];
      case 3: return [b.toString("utf8", at, at + n), at + n];
      case 4: {
        const list = [];
        for (let i = 0; i < n; i++) [list[i], at] = cbor.decode(b, at);
        return [list, at];
      }
      case 5: {
        const map = {};
        for (let i = 0, k; i < n; i++) {
          [k, at] = cbor.decode(b, at);
          [map[k], at] = cbor.decode(b, at);
        }
        return [map, at];
      }
      case 6: return cbor.decode(b, at); // the tag's meaning is the reader's business
    }
    if (low === 26) return [b.readFloatBE(at - 4), at];
    if (low === 27) return [b.readDoubleBE(at - 8), at];
    return [{ 20: false, 21: true, 22: null }[low], at];
  },
  bytes: (b) => b,
  fromBytes: (v) => v,
};

const json = {
  encode: (v) => Buffer.from(JSON.stringify(v) + "\n"),
  decode(b, at) {
    const end = b.indexOf("\n", at);
    return [JSON.parse(b.toString("utf8", at, end)), end + 1];
  },
  bytes: (b) => b.toString("base64"),
  fromBytes: (v) => Buffer.from(v, "base64"),
};

// The notation.

function varint(n) {
  const b = [];
  for (n = BigInt(n); n >= 128n; n >>= 7n) b.push(Number(n & 127n) | 128);
  return Buffer.from([...b, Number(n)]);
}

const blob = (v) => Buffer.concat([varint(Buffer.byteLength(v)), Buffer.from(v)]);

class Cursor {
  constructor(b, at = 0) {
    this.b = b;
    this.at = at;
  }
  u8() {
    return this.b[this.at++];
  }
  u32() {
    this.at += 4;
    return this.b.readUInt32BE(this.at - 4);
  }
  varint() {
    let n = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const c = this.u8();
      n |= BigInt(c & 127) << shift;
      if (c < 128) return Number(n);
    }
  }
  blob() {
    const n = this.varint();
    this.at += n;
    return this.b.subarray(this.at - n, this.at);
  }
  rest() {
    return this.b.subarray(this.at);
  }
  get left() {
    return this.b.length - this.at;
  }
}

const HELLO = 1, NAME = 2, REQUEST = 3, RESPONSE = 4, PART = 5, CANCEL = 6, ITEM = 7, DATA = 8, CLOSE = 9, STOP = 10, CREDIT = 11, PING = 12, PONG = 13, GOAWAY = 14;
const More = 1, HasMeta = 2, HasLimit = 8, End = 8, OneWay = 16, Failed = 16, Callback = 32, Check = 64, FromCallee = 128;
const preface = Buffer.from([0xd9, ..."yonder".split("").map((c) => c.charCodeAt(0)), 1]);
const maxBody = 69632, window = 65536;

class RemoteError extends Error {
  constructor(c, codec, outermost = true) {
    const code = c.u8();
    super(c.blob().toString());
    this.code = code || (outermost ? 2 : 0);
    this.names = Array.from({ length: c.varint() }, () => c.blob().toString());
    this.type = c.blob().toString();
    if (this.type) this.value = codec.decode(c.blob(), 0)[0];
    const details = c.blob();
    if (details.length) this.details = codec.decode(details, 0)[0];
    this.causes = Array.from({ length: c.varint() }, () => new RemoteError(c, codec, false));
  }
}

function errorRecord(code, message) {
  return Buffer.concat([Buffer.from([code]), blob(message), Buffer.from([0, 0, 0, 0])]); // no names, type, details, causes
}

function meta(pairs) {
  return blob(Buffer.concat(Object.keys(pairs).sort().flatMap((k) => [blob(k), blob(pairs[k])])));
}

function parseMeta(b) {
  const pairs = {};
  for (const c = new Cursor(b); c.left; ) {
    const k = c.blob().toString();
    pairs[k] = c.blob().toString();
  }
  return pairs;
}

// A stream or reader that the callee produces.
class Incoming {
  queue = [];
  held = 0;
  constructor(call, channel) {
    Object.assign(this, { call, channel });
  }
  add(v, cost) {
    this.queue.push([v, cost]);
    this.wake?.();
  }
  close(error) {
    this.ended = true;
    this.error = error;
    this.wake?.();
  }
  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        while (this.queue.length) {
          const [v, cost] = this.queue.shift();
          yield v;
          if ((this.held += cost) >= window / 2 && !this.ended) {
            this.call.frame(CREDIT, 0, [this.channel], varint(this.held));
            this.held = 0;
          }
        }
        if (this.error) throw this.error;
        if (this.ended) return;
        await new Promise((resolve) => (this.wake = resolve));
      }
    } finally {
      if (!this.ended) this.call.frame(STOP, 0, [this.channel]);
    }
  }
}

class Client {
  names = new Map();
  slots = [];
  free = [];
  calls = new Map(); // by id
  incoming = new Map(); // what the server calls
  buffer = Buffer.alloc(0);
  taken = 0; // of messages in parts, since the server was last told

  static async connect(port, codecName) {
    const c = new Client();
    c.codec = { cbor, json }[codecName];
    c.socket = net.connect(port, "127.0.0.1");
    c.closed = new Promise((resolve) => c.socket.on("close", resolve));
    c.going = new Promise((resolve) => (c.goes = resolve));
    const fields = [[1, codecName], [2, varint(64 << 20)], [3, varint(100)], [4, varint(100)], [5, varint(8192)], [6, varint(window)], [99, "of a later version"]];
    c.socket.write(preface);
    c.send(HELLO, 0, 0, ...fields.flatMap(([k, v]) => [varint(k), blob(v)]));
    c.socket.on("data", (b) => c.read(b));
    await new Promise((resolve) => (c.greeted = resolve));
    return c;
  }

  send(type, flags, id, ...body) {
    const b = Buffer.concat([Buffer.alloc(10), ...body.map((x) => Buffer.from(x))]);
    assert(b.length <= maxBody + 10);
    b.writeUInt32BE(b.length - 4, 0);
    b[4] = type;
    b[5] = flags;
    b.writeUInt32BE(id, 6);
    this.socket.write(b);
  }

  read(b) {
    this.buffer = Buffer.concat([this.buffer, b]);
    if (!this.prefaced) {
      if (this.buffer.length < 8) return;
      assert.deepEqual(this.buffer.subarray(0, 8), preface);
      this.buffer = this.buffer.subarray(8);
      this.prefaced = true;
    }
    while (this.buffer.length >= 10) {
      const end = 4 + this.buffer.readUInt32BE(0);
      if (this.buffer.length < end) return;
      const [type, flags, id] = [this.buffer[4], this.buffer[5], this.buffer.readUInt32BE(6)];
      this.frame(type, flags, id, new Cursor(this.buffer.subarray(0, end), 10));
      this.buffer = this.buffer.subarray(end);
    }
  }

  frame(type, flags, id, c) {
    switch (type) {
      case HELLO: {
        const hello = (this.hello = { codecs: [] });
        while (c.left) {
          const key = c.varint(), value = c.blob();
          if (key === 1) hello.codecs.push(value.toString());
          else if (key <= 6) hello[["maxMessage", "maxCalls", "maxNames", "maxMeta", "window"][key - 2]] = new Cursor(value).varint();
        }
        return this.greeted();
      }
      case PING:
        return this.send(PONG, 0, 0, c.rest());
      case GOAWAY:
        this.gone = { code: c.u8(), reason: c.rest().toString() };
        this.goes();
        if (this.gone.code === 13) throw new Error(this.gone.reason);
        if (!this.calls.size) this.socket.end();
        return;
      case REQUEST:
        return this.callback(flags, id, c);
    }
    if (type === PART && (this.taken += c.left - 1) >= 262_140) {
      this.send(CREDIT, 0, 0, [0], varint(this.taken));
      this.taken = 0;
    }
    const call = this.calls.get(id);
    if (!call) return assert(type !== RESPONSE, "an answer to no call");
    assert(type === RESPONSE || flags & FromCallee, "only callbacks are the server's calls, and they are short");
    switch (type) {
      case RESPONSE: {
        if (flags & HasMeta) call.meta = parseMeta(c.blob());
        call.parts = null;
        call.ends = !!(flags & End);
        call.failed = !!(flags & Failed);
        if (flags & More) call.parts = { total: c.varint(), got: [] };
        else call.answer(c.rest());
        break;
      }
      case PART: {
        const channel = c.u8();
        const parts = channel ? call.streams.get(channel)?.parts : call.parts;
        if (!parts) break;
        parts.got.push(Buffer.from(c.rest()));
        if (flags & More) break;
        const whole = Buffer.concat(parts.got);
        assert.equal(whole.length, parts.total);
        if (channel) {
          const s = call.streams.get(channel);
          s.parts = null;
          s.add(this.codec.decode(whole, 0)[0], whole.length);
        } else call.answer(whole);
        break;
      }
      case ITEM: {
        const s = call.streams.get(c.u8());
        if (!s) break;
        if (flags & More) {
          s.parts = { total: c.varint(), got: [] };
          break;
        }
        while (c.left) {
          const before = c.at;
          const v = this.codec.decode(c.blob(), 0)[0];
          s.add(v, c.at - before);
        }
        break;
      }
      case DATA: {
        const s = call.streams.get(c.u8());
        s?.add(Buffer.from(c.rest()), c.left);
        break;
      }
      case CLOSE: {
        const s = call.streams.get(c.u8());
        s?.close(flags & Failed ? new RemoteError(c, this.codec) : undefined);
        if (flags & End) call.end();
        break;
      }
      case CREDIT: {
        const channel = c.u8(), n = c.varint();
        call.give(channel, n);
        break;
      }
      case STOP:
        call.stopped.add(c.u8());
        call.give(0, 0);
    }
  }

  // call makes a call. Results come from its results method, or, of streams, from streams.
  call(name, signature, args, { streams = [], flags = 0, limit, metadata, callbacks = {} } = {}) {
    const key = name + "\0" + signature;
    if (!this.names.has(key)) {
      this.names.set(key, this.names.size);
      this.send(NAME, 0, this.names.get(key), blob(name), Buffer.from(signature));
    }
    const slot = this.free.pop() ?? this.slots.push(0) - 1;
    assert(slot < this.hello.maxCalls, "this client does not wait for a slot");
    this.slots[slot] = (this.slots[slot] + 1) & 0xffff;
    const call = new Call(this, ((this.slots[slot] << 16) | slot) >>> 0, streams, callbacks);
    this.calls.set(call.id, call);
    const head = [varint(this.names.get(key))];
    if (limit !== undefined) (flags |= HasLimit), head.push(varint(limit));
    if (metadata) (flags |= HasMeta), head.push(meta(metadata));
    const body = Buffer.concat(args.map(this.codec.encode));
    if (body.length + 100 < maxBody) this.send(REQUEST, flags, call.id, ...head, body);
    else {
      this.send(REQUEST, flags | More, call.id, ...head, varint(body.length));
      for (let at = 0; at < body.length; at += 60000)
        this.send(PART, at + 60000 < body.length ? More : 0, call.id, [0], body.subarray(at, at + 60000));
    }
    return call;
  }

  async callback(flags, id, c) {
    assert(flags & Callback);
    const f = this.calls.get(c.u32())?.callbacks[c.u8()];
    if (flags & HasLimit) c.varint();
    if (flags & HasMeta) c.blob();
    assert(!(flags & More));
    if (!f) return this.send(RESPONSE, End | Failed, id, errorRecord(9, "there is no such function"));
    const args = this.sequence(c.rest());
    try {
      const results = await f(...args);
      this.send(RESPONSE, End, id, ...results.map(this.codec.encode));
    } catch (e) {
      this.send(RESPONSE, End | Failed, id, errorRecord(2, e.message));
    }
  }

  sequence(b) {
    const values = [];
    for (let at = 0, v; at < b.length; values.push(v)) [v, at] = this.codec.decode(b, at);
    return values;
  }
}

class Call {
  streams = new Map();
  credit = new Map();
  stopped = new Set();
  waiting = [];
  constructor(client, id, channels, callbacks) {
    Object.assign(this, { client, id, callbacks });
    for (const channel of channels) this.streams.set(channel, new Incoming(this, channel));
    this.results = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.results.catch(() => {});
    this.over = new Promise((resolve) => (this.isOver = resolve));
  }
  frame(type, flags, ...body) {
    if (!this.ended) this.client.send(type, flags, this.id, ...body);
  }
  answer(b) {
    b = Buffer.from(b);
    if (this.failed) this.reject(new RemoteError(new Cursor(b), this.client.codec));
    else this.resolve(this.client.sequence(b));
    if (this.ends) this.end();
  }
  end() {
    this.ended = true;
    for (const s of this.streams.values()) if (!s.ended) s.close();
    this.client.calls.delete(this.id);
    this.client.free.push(this.id & 0xffff);
    this.give(0, 0);
    this.isOver();
  }
  cancel() {
    this.frame(CANCEL, 0, [1]);
  }
  give(channel, n) {
    this.credit.set(channel, (this.credit.get(channel) ?? this.client.hello.window) + n);
    for (const wake of this.waiting.splice(0)) wake();
  }
  async room(channel) {
    for (;;) {
      if (this.ended || this.stopped.has(channel)) return 0;
      const n = this.credit.get(channel) ?? this.client.hello.window;
      if (n > 0) return n;
      await new Promise((resolve) => this.waiting.push(resolve));
    }
  }
  // write sends bytes of a reader, item one value of a stream; both wait for credit.
  async write(channel, b) {
    while (b.length) {
      const n = Math.min(await this.room(channel), b.length, maxBody - 1);
      if (!n) return;
      this.frame(DATA, 0, [channel], b.subarray(0, n));
      this.give(channel, -n);
      b = b.subarray(n);
    }
  }
  async item(channel, v) {
    if (!(await this.room(channel))) return;
    const b = blob(this.client.codec.encode(v));
    this.frame(ITEM, 0, [channel], b);
    this.give(channel, -b.length);
  }
  close(channel) {
    this.frame(CLOSE, 0, [channel]);
  }
}

// What the test does.

const c = await Client.connect(Number(process.argv[2]), process.argv[3]);
const { codec } = c;
const say = (what) => console.log(what);

let call = c.call("describe", "(User{name string; Age int}, []string) (string, int)", [{ name: "Ann", age: 41 }, ["a", "b"]], { metadata: { tenant: "acme" } });
assert.deepEqual(await call.results, ["Ann is 41, [a b]", 2]);
assert.deepEqual(call.meta, { "served-for": "acme" });
say("values and metadata");

call = c.call("find", "(int) (User{Name string})", [7]);
let error = await call.results.catch((e) => e);
assert.deepEqual([error.code, error.message], [5, "user 7: file does not exist"]);
assert.deepEqual(error.causes.map((e) => [e.code, e.message, e.names]), [[0, "file does not exist", ["fs.ErrNotExist"]]]);
call = c.call("limited", "()", []);
error = await call.results.catch((e) => e);
assert.deepEqual([error.code, error.details], [8, "tomorrow"]);
assert.deepEqual(error.causes.map((e) => [e.type, e.value]), [["QuotaError", { Limit: 10 }]]);
say("errors");

call = c.call("find", "(string) (User{Name string})", ["7"]);
error = await call.results.catch((e) => e);
assert.equal(error.code, 3);
assert.match(error.message, /caller has string, callee has int/);
call = c.call("fnid", "()", [], { flags: Check });
assert.equal((await call.results.catch((e) => e)).code, 12);
call = c.call("find", "(int) ({Name string})", [], { flags: Check });
assert.deepEqual(await call.results, []);
call = c.call("find", "(int) ({Name string})", []);
assert.equal((await call.results.catch((e) => e)).code, 3);
say("signatures");

call = c.call("note", "(string)", ["one-way"], { flags: OneWay });
assert.deepEqual(await call.results, []);
say("one-way");

const large = Buffer.alloc(300_000, "yonder");
call = c.call("reverse", "(bytes) (bytes)", [codec.bytes(large)]);
const [reversed] = await call.results;
assert(codec.fromBytes(reversed).equals(Buffer.from(large).reverse()));
say("parts");

call = c.call("texts", "(int, int) (stream string)", [50, 10_000], { streams: [1] });
assert.deepEqual(await call.results, [1]);
let n = 0;
for await (const text of call.streams.get(1)) assert.equal(text.length, 10_000), n++;
assert.equal(n, 50);
await call.over;
call = c.call("texts", "(int, int) (stream string)", [3, 200_000], { streams: [1] });
n = 0;
for await (const text of call.streams.get(1)) n += text.length;
assert.equal(n, 600_000);
say("a stream, with credit");

call = c.call("texts", "(int, int) (stream string)", [1e9, 10], { streams: [1] });
n = 0;
for await (const text of call.streams.get(1)) if (++n === 20_000) break;
await call.over;
say("a stream, stopped");

call = c.call("sum", "(stream int) (int)", [1]);
for (let i = 1; i <= 100_000; i++) await call.item(1, i);
call.close(1);
assert.deepEqual(await call.results, [5_000_050_000]);
say("a stream of the caller's");

call = c.call("size", "(string, reader) (int)", ["a.txt", 1]);
await call.write(2, Buffer.alloc(1_000_000));
call.close(2);
assert.deepEqual(await call.results, [1_000_000]);
call = c.call("open", "() (reader)", [], { streams: [1] });
const chunks = [];
for await (const b of call.streams.get(1)) chunks.push(b);
assert.equal(Buffer.concat(chunks).toString(), "the content");
say("readers");

call = c.call("each", "(int, func(int) (int)) (int)", [3, 1], { callbacks: { 1: async (i) => [i * i] } });
assert.deepEqual(await call.results, [5]);
call = c.call("each", "(int, func(int) (int)) (int)", [3, 1], { callbacks: { 1: async () => { throw new Error("no more"); } } });
assert.match((await call.results.catch((e) => e)).message, /no more/);
say("callbacks");

call = c.call("wait", "(func())", [1], { callbacks: { 0: async () => (call.cancel(), []) } });
assert.equal((await call.results.catch((e) => e)).code, 1);
call = c.call("wait", "(func())", [null], { limit: 20_000 });
assert.equal((await call.results.catch((e) => e)).code, 4);
say("cancellation and deadlines");

let begun;
const started = new Promise((resolve) => (begun = resolve));
const last = c.call("wait", "(func())", [1], { callbacks: { 0: async () => (begun(), []) } });
await started; // the connection stays as long as it does
call = c.call("leave", "()", []);
assert.deepEqual(await call.results, []);
await c.going;
assert.equal(c.gone.code, 14);
call = c.call("note", "(string)", ["too late"]); // as one that was on its way
const refused = await call.results.catch((e) => e);
assert.deepEqual([refused.code, refused.message, refused.names], [14, c.gone.reason, ["yonder.unrun"]]);
last.cancel();
await c.closed;
say("shutdown");
