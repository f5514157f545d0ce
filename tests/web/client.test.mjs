/**
 * The JavaScript client: against a socket that the test plays, and against a live server when
 * OVOAD_URL names one (with OVOAD_JPEG, a picture for it).
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { StreamError, connect, streamAddress, unpackFrame } from "../../clients/web/ovoad.js";

const golden = (name) => JSON.parse(readFileSync(new URL(`../golden/${name}`, import.meta.url)));
const grant = { ...golden("server.session.created.json"), policy: "realtime" };
const created = { ...grant, resumed: false, next_seq: undefined };
const prediction = golden("server.prediction.json");
const url = process.env.OVOAD_URL;
const live = { skip: url ? false : "OVOAD_URL names no server" };

/** A WebSocket whose other end is the test. */
class PlayedSocket extends EventTarget {
  static last;
  readyState = 1;
  bufferedAmount = 0;
  sent = [];

  constructor(address, protocols) {
    super();
    Object.assign(this, { address, protocols });
    PlayedSocket.last = this;
    queueMicrotask(() => this.dispatchEvent(new Event("open")));
  }

  send(data) {
    this.sent.push(data);
  }

  say(message) {
    this.dispatchEvent(new MessageEvent("message", { data: JSON.stringify(message) }));
  }

  hangUp(code, reason = "") {
    this.readyState = 3;
    this.dispatchEvent(Object.assign(new Event("close"), { code, reason }));
  }

  close() {
    this.hangUp(1005);
  }
}

/** Open a session with the played socket. */
async function open(options = {}) {
  const opening = connect("host:8000", { labels: ["waving"], WebSocket: PlayedSocket, ...options });
  const socket = PlayedSocket.last;
  await settle();
  socket.say({ ...created, policy: options.policy ?? "realtime" });
  return { stream: await opening, socket };
}

/** Wait for the next connection to say session.create; returns its socket and what it said. */
async function nextSocket(old) {
  while (PlayedSocket.last === old || !PlayedSocket.last.sent.length) await settle();
  return { socket: PlayedSocket.last, create: JSON.parse(PlayedSocket.last.sent[0]) };
}

const sentFrames = (socket) =>
  socket.sent.filter((data) => typeof data !== "string").map((data) => unpackFrame(data).seq);

const settle = () => new Promise((resolve) => setTimeout(resolve));

/** Wait for a promise to fail; returns why. */
async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  return assert.fail("found no error");
}

async function readAll(stream) {
  const messages = [];
  for await (const message of stream) messages.push(message);
  return messages;
}

test("addresses are completed", () => {
  assert.equal(streamAddress("host:8000"), "ws://host:8000/v1/stream");
  assert.equal(streamAddress("http://host:8000/"), "ws://host:8000/v1/stream");
  assert.equal(streamAddress("https://host"), "wss://host/v1/stream");
  assert.equal(streamAddress("ws://host/deep/v1/stream"), "ws://host/deep/v1/stream");
});

test("says session.create first, as the golden message has it", async () => {
  const whole = golden("client.session.create.json");
  const { vocabulary, policy, scorer, top_k: topK, events, resume } = whole;
  const { socket } = await open({ ...vocabulary, policy, scorer, topK, events, resume });
  assert.deepEqual(JSON.parse(socket.sent[0]), whole);
  assert.deepEqual(socket.protocols, ["ovoad.v1"]);
});

test("leaves out what was not asked for", async () => {
  const { socket } = await open();
  const expected = { type: "session.create", vocabulary: { labels: ["waving"] } };
  assert.deepEqual(JSON.parse(socket.sent[0]), expected);
});

test("frames and words are sent in the order of the calls, blobs too", async () => {
  const { stream, socket } = await open();
  assert.equal(stream.sendFrame(new Blob(["first"]), 10), 0);
  const updated = stream.updateVocabulary({ labels: ["juggling a ball"] });
  assert.equal(stream.sendFrame(new TextEncoder().encode("second"), 20), 1);
  assert.throws(() => stream.sendFrame(new Uint8Array(1), 20), /expected more than 20 ms/);
  assert.equal(stream.unanswered, 2);
  await settle();
  const [, first, update, second] = socket.sent;
  assert.equal(new TextDecoder().decode(unpackFrame(first).image), "first");
  assert.deepEqual(JSON.parse(update), golden("client.vocabulary.update.json"));
  assert.deepEqual([unpackFrame(second).seq, unpackFrame(second).timestampMs], [1, 20]);
  socket.say(golden("server.vocabulary.updated.json"));
  assert.equal((await updated).vocabulary_version, 2);
});

test("iteration yields every message, and ends with session.closed", async () => {
  const { stream, socket } = await open();
  stream.sendFrame(new Uint8Array(1), 0);
  const reading = readAll(stream);
  const closing = stream.close();
  const closed = golden("server.session.closed.json");
  for (const message of [{ ...prediction, seq: 0 }, closed]) socket.say(message);
  socket.hangUp(1000);
  assert.deepEqual((await reading).map(({ type }) => type), ["prediction", "session.closed"]);
  assert.deepEqual(await closing, closed);
  assert.equal(stream.unanswered, 0);
  assert.throws(() => stream.sendFrame(new Uint8Array(1), 1), StreamError);
});

test("a refused vocabulary rejects its update and leaves the stream open", async () => {
  const { stream, socket } = await open();
  const update = stream.updateVocabulary({ labels: [] });
  const message = "vocabulary: found no label, expected at least 1";
  socket.say({ type: "error", code: "bad_message", message, fatal: false, transient: false });
  const error = await failure(update);
  assert.deepEqual([error.message, error.code], [message, "bad_message"]);
  const reset = stream.reset();
  socket.say({ type: "session.was_reset" });
  await reset;
});

test("a fatal error says why, and whether to come back", async () => {
  const opening = connect("host", { labels: ["x"], WebSocket: PlayedSocket });
  await settle();
  PlayedSocket.last.say(golden("server.error.json"));
  PlayedSocket.last.hangUp(1013, "capacity");
  const error = await failure(opening);
  assert.equal(error.message, "found 64 sessions, expected fewer than 64");
  assert.deepEqual([error.code, error.closeCode, error.retryAfterMs], ["capacity", 1013, 1000]);
  assert.ok(error.retryable);
});

for (const [code, retryable] of [
  [1006, true],
  [1008, false],
  [1009, false],
  [1011, true],
  [1012, true],
  [4401, false],
]) {
  test(`close code ${code} ${retryable ? "invites" : "does not invite"} to come back`, async () => {
    const { stream, socket } = await open({ reconnect: false });
    const reading = readAll(stream);
    socket.hangUp(code);
    assert.equal((await failure(reading)).retryable, retryable);
  });
}

test("a server that never answers is given up in time", async () => {
  const opening = connect("host", { labels: ["x"], WebSocket: PlayedSocket, openTimeoutMs: 5 });
  const error = await failure(opening);
  assert.equal(error.message, "found no answer in 5 ms, expected session.created");
});

test("a message that breaks the contract ends the stream", async () => {
  const { stream, socket } = await open();
  const reading = readAll(stream);
  socket.say({ ...prediction, background: "none" });
  assert.match((await failure(reading)).message, /prediction.background: found "none"/);
});

const AT_ONCE = { firstMs: 0 };
const event = golden("server.event.json");

test("lossless sends again in order what the server lacks, and tells nothing twice", async () => {
  const { stream, socket } = await open({ policy: "lossless", reconnect: AT_ONCE });
  const reading = readAll(stream);
  for (const seq of [0, 1, 2]) stream.sendFrame(new Uint8Array([seq]), seq);
  const update = stream.updateVocabulary({ labels: ["sitting"] });
  stream.sendFrame(new Blob(["3"]), 3);
  for (const message of [{ ...prediction, seq: 0 }, { ...prediction, seq: 2 }, event]) {
    socket.say(message);
  }
  socket.hangUp(1006);
  assert.equal(stream.connected, false);
  const { socket: next, create } = await nextSocket(socket);
  assert.deepEqual(create.resume, { token: created.resume_token, last_seq: 0 });
  const resumed = { ...created, policy: "lossless", resumed: true, next_seq: 3, resume_token: "new" };
  for (const message of [resumed, { ...prediction, seq: 2 }, event, { ...prediction, seq: 1 }]) {
    next.say(message); // in one turn, as a WebSocket of node hands on what came in one packet
  }
  await settle();
  assert.deepEqual(sentFrames(next), [3]);
  assert.equal(JSON.parse(next.sent[1]).type, "vocabulary.update");
  const updated = golden("server.vocabulary.updated.json");
  next.say({ ...updated, labels: ["sitting"] });
  assert.deepEqual((await update).labels, ["sitting"]);
  next.say({ ...prediction, seq: 3 });
  const closing = stream.close();
  next.say(golden("server.session.closed.json"));
  next.hangUp(1000);
  await closing;
  const messages = await reading;
  const answers = messages.filter(({ type }) => type === "prediction").map(({ seq }) => seq);
  assert.deepEqual(answers, [0, 2, 1, 3]);
  assert.equal(messages.filter(({ type }) => type === "event").length, 1);
  const notice = messages.find(({ type }) => type === "client.reconnected");
  assert.deepEqual(notice, { type: "client.reconnected", resumed: true, sent_again: [3] });
  assert.equal(stream.created.resume_token, "new");
});

test("realtime names the frames that are lost; a fresh session has the newest words", async () => {
  const { stream, socket } = await open({ reconnect: AT_ONCE });
  const reading = readAll(stream);
  const updated = { ...golden("server.vocabulary.updated.json"), labels: ["sitting"] };
  const update = stream.updateVocabulary({ labels: ["sitting"], background: ["a room"] });
  socket.say(updated);
  await update;
  for (const seq of [0, 1]) stream.sendFrame(new Uint8Array(1), seq);
  socket.say({ type: "goaway", reason: "restart", time_left_ms: 10 });
  socket.say({ ...prediction, seq: 0 });
  socket.say({ ...golden("server.session.closed.json"), reason: "restart" });
  socket.hangUp(1012, "restart");
  const full = await nextSocket(socket);
  full.socket.say({ ...golden("server.error.json"), code: "restarting", retry_after_ms: 5 });
  full.socket.hangUp(1012);
  const { socket: next, create } = await nextSocket(full.socket);
  assert.deepEqual(create.vocabulary, { labels: ["sitting"], background: ["a room"] });
  next.say({ ...created, labels: ["sitting"] });
  stream.sendFrame(new Uint8Array(1), 2);
  await settle();
  assert.deepEqual(sentFrames(next), [2]);
  next.say({ type: "error", code: "superseded", message: "gone", fatal: true, transient: false });
  next.hangUp(1008);
  const error = await failure(reading);
  assert.equal(error.message, "another client took the session over: gone");
  assert.deepEqual([error.code, error.retryable], ["superseded", false]);
});

test("notices come in order, and every frame ends once", async () => {
  const { stream, socket } = await open({ reconnect: AT_ONCE });
  const messages = [];
  const reading = (async () => {
    for await (const message of stream) messages.push(message);
  })();
  stream.sendFrame(new Uint8Array(1), 0);
  socket.hangUp(1011);
  const { socket: next } = await nextSocket(socket);
  next.say(created);
  stream.sendFrame(new Uint8Array(1), 1);
  next.hangUp(4401);
  const error = await failure(reading);
  assert.equal(error.closeCode, 4401);
  assert.deepEqual(
    messages.map(({ type, seqs }) => [type, seqs]),
    [
      ["client.reconnecting", undefined],
      ["session.created", undefined],
      ["client.reconnected", undefined],
      ["client.frames_lost", [0]],
      ["client.frames_lost", [1]],
    ],
  );
});

test("a server that stays away is given up in time, with the last reason", async () => {
  const reconnect = { firstMs: 1, longestMs: 1000, giveUpMs: 10 };
  const { stream, socket } = await open({ reconnect });
  const reading = readAll(stream);
  socket.hangUp(1006);
  const busy = setInterval(() => PlayedSocket.last !== socket && PlayedSocket.last.hangUp(1006), 1);
  const error = await failure(reading);
  clearInterval(busy);
  assert.match(error.message, /^gave up reconnecting after \d+ attempts? in .* s: connection broken$/);
});

test("silence where an answer is due is a break; close() without a connection tries once", async () => {
  const { stream, socket } = await open({ timeoutMs: 5, reconnect: { firstMs: 100_000 } });
  const reading = readAll(stream);
  stream.sendFrame(new Uint8Array(1), 0);
  while (stream.connected) await settle();
  const closing = stream.close();
  const { socket: next } = await nextSocket(socket);
  next.hangUp(1006);
  assert.equal((await failure(closing)).message, "connection broken");
  await failure(reading);
});

test("a live server answers every frame, takes new words, closes in order", live, async () => {
  const jpeg = readFileSync(process.env.OVOAD_JPEG);
  const labels = ["playing guitar", "cooking soup"];
  const stream = await connect(url, { labels, policy: "lossless" });
  for (let index = 0; index < 4; index += 1) stream.sendFrame(jpeg, index * 250);
  const updated = await stream.updateVocabulary({ labels: ["playing guitar"] });
  assert.equal(updated.from_seq, 4);
  stream.sendFrame(new Blob([jpeg]), 1000);
  await stream.ping();
  const closed = await stream.close();
  const predictions = (await readAll(stream)).filter(({ type }) => type === "prediction");
  assert.deepEqual(predictions.map(({ seq }) => seq), [0, 1, 2, 3, 4]);
  assert.deepEqual(predictions.map((one) => one.probabilities.length), [2, 2, 2, 2, 1]);
  for (const { probabilities, background } of predictions) {
    const sum = probabilities.reduce((a, b) => a + b, background);
    assert.ok(Math.abs(sum - 1) < 1e-4);
  }
  assert.deepEqual([closed.received, closed.predicted], [5, 5]);
});

test("the example at the head of ovoad.js runs", live, async () => {
  const source = readFileSync(new URL("../../clients/web/ovoad.js", import.meta.url), "utf8");
  const lines = source.split("\n").filter((line) => line.startsWith(" *     "));
  const body = lines.slice(1).map((line) => line.slice(7)).join("\n");
  const code = body
    .replace("http://127.0.0.1:8000", url)
    .replace("console.log(", "return tell(stream, ");
  const run = new Function("connect", "jpeg", "tell", `return (async () => {${code}})()`);
  const told = [];
  const tell = (stream, ...values) => {
    told.push(...values);
    return stream.close();
  };
  await run(connect, readFileSync(process.env.OVOAD_JPEG), tell);
  assert.equal(told[0].length, 1);
  assert.equal(typeof told[1], "number");
});
