"use strict";
const byId = id => document.getElementById(id);
let before = null; // what came last, for rates

// Numbers and durations as people read them.
const count = n => n === undefined ? "" : n.toLocaleString("en");
function seconds(s) {
  if (!s) return "";
  if (s < 1e-3) return (s * 1e6).toPrecision(3) + " µs";
  if (s < 1) return (s * 1e3).toPrecision(3) + " ms";
  return s.toPrecision(3) + " s";
}
function bytes(n) {
  if (!n) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return (i ? n.toPrecision(3) : n) + " " + units[i];
}
const rate = (now, then, dt) => dt > 0 && then !== undefined ? Math.max(0, now - then) / dt : 0;
const perSecond = r => r ? (r < 10 ? r.toPrecision(2) : count(Math.round(r))) : "";

// cell makes a cell of text: nothing that comes from the server is ever markup.
function cell(text, ...more) {
  const td = document.createElement("td");
  td.textContent = text;
  td.append(...more);
  return td;
}
function fill(id, rows) { byId(id).tBodies[0].replaceChildren(...rows); }

function show(now) {
  const dt = before ? (now.time - before.time) / 1000 : 0;
  const state = byId("state");
  state.textContent = now.ready ? "ready" : now.reason;
  state.className = now.ready ? "good" : "bad";
  const note = byId("note");
  note.hidden = now.measured;
  note.textContent = "Calls are not counted: set Server.Measure.";
  const calls = now.stats.calls || {}, last = before && before.stats.calls || {};
  const info = new Map(now.procedures.map(p => [p.name, p]));
  const names = [...new Set([...info.keys(), ...Object.keys(calls)])].sort();
  fill("calls", names.map(name => {
    const c = calls[name] || {}, p = info.get(name), tr = document.createElement("tr");
    const signature = document.createElement("code");
    if (p) signature.textContent = p.go;
    if (p && p.doc) tr.title = p.doc;
    const errors = Object.entries(c.errors || {}).map(([code, n]) => code + " " + count(n)).join(", ");
    const latency = now.latency[name] || {};
    tr.append(
      cell(name, signature), cell(count(c.started)), cell(perSecond(rate(c.started, (last[name] || {}).started, dt))),
      cell(c.in_flight ? count(c.in_flight) : ""), cell(c.streams ? count(c.streams) : ""), cell(errors),
      cell(seconds(latency.median)), cell(seconds(latency.p99)), cell(seconds(latency.mean)),
      cell(bytes(c.request_bytes)), cell(bytes(c.response_bytes)));
    tr.cells[5].className = errors ? "bad" : "";
    tr.className = c.started ? "" : "idle";
    return tr;
  }));
  const connections = now.stats.connections, lastOf = before ? before.stats.connections : {};
  fill("connections", Object.keys(connections).sort().map(protocol => {
    const c = connections[protocol], l = lastOf[protocol] || {}, tr = document.createElement("tr");
    tr.append(
      cell(protocol), cell(count(c.open)), cell(count(c.total)), cell(bytes(c.bytes_read)), cell(bytes(c.bytes_written)),
      cell(bytes(Math.round(rate(c.bytes_read, l.bytes_read, dt)))), cell(bytes(Math.round(rate(c.bytes_written, l.bytes_written, dt)))));
    return tr;
  }));
  byId("refused").textContent = now.stats.refused ? count(now.stats.refused) + " connections spoke no protocol that is served here." : "";
  const r = now.stats.resumption;
  byId("resumption").textContent = now.resumes ?
    count(r.open) + " may be resumed, " + count(r.suspended) + " of them lost just now; " + count(r.resumed) + " times one was, " +
    count(r.expired) + " were given up after their time, " + count(r.evicted) + " for want of room, and " + count(r.refused) +
    " attempts were refused. Held for the other ends: " + (bytes(r.kept_bytes) || "nothing") + "." : "";
  before = now;
}

async function look() {
  try {
    const response = await fetch("?format=json", { cache: "no-store" });
    if (!response.ok) throw new Error(response.status + " " + response.statusText);
    show(await response.json());
  } catch (err) {
    const state = byId("state");
    state.textContent = "no answer: " + err.message;
    state.className = "bad";
    before = null;
  }
  setTimeout(look, document.hidden ? 5000 : 1000);
}
look();
