/**
 * The JavaScript client: against a socket that the test plays, and against a live server when
 * OVOAD_URL names one (with OVOAD_JPEG, a picture for it).
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { StreamError, connect, streamAddress, unpackFrame } from "../../clients/web/ovoad.js";

const golden = (name) => JSON.parse(readFileSync(new URL(`../golden/${name}`, import.meta.url)));
const created = { ...golden("server.session.created.json"), resumed: false, next_seq: undefined };
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
  socket.say(created);
  return { stream: await opening, socket };
}

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
    const { stream, socket } = await open();
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
