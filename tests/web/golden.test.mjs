/** The JavaScript wire schema against the golden messages that the Python one is checked against. */

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import {
  ProtocolError,
  packFrame,
  parseServerMessage,
  subprotocols,
  unpackFrame,
} from "../../clients/web/ovoad.js";

const golden = new URL("../golden/", import.meta.url);
const read = (name) => readFileSync(new URL(name, golden), "utf8");
const serverMessages = readdirSync(golden).filter((name) => name.startsWith("server."));

for (const name of serverMessages) {
  test(`parses ${name} and loses nothing`, () => {
    assert.deepEqual(parseServerMessage(read(name)), JSON.parse(read(name)));
  });

  test(`refuses ${name} with any needed field missing or of a wrong type`, () => {
    const whole = JSON.parse(read(name));
    const optional = ["type", "seq", "next_seq", "nonce", "retry_after_ms", "start_ms"];
    optional.push("probabilities", "similarities", "top", "grouping");
    for (const field of Object.keys(whole)) {
      const wrong = { ...whole, [field]: { not: "it" } };
      assert.throws(() => parseServerMessage(JSON.stringify(wrong)), ProtocolError, field);
      const needed = !optional.includes(field) || (field === "seq" && whole.type !== "error");
      const { [field]: _, ...without } = whole;
      if (needed && field !== "type") {
        const missing = { message: `field ${whole.type}.${field} is missing` };
        assert.throws(() => parseServerMessage(JSON.stringify(without)), missing);
      }
    }
  });
}

test("knows every type of server message that has a golden file", () => {
  const types = new Set(serverMessages.map((name) => JSON.parse(read(name)).type));
  assert.equal(types.size, 10);
  for (const type of types) {
    const bare = JSON.stringify({ type });
    const hasNoFields = type === "session.was_reset" || type === "pong";
    if (!hasNoFields) assert.throws(() => parseServerMessage(bare), ProtocolError, type);
  }
});

test("packs the golden binary frame to the byte, and unpacks it", () => {
  const frame = JSON.parse(read("binary_frame.json"));
  const image = Buffer.from(frame.image_hex, "hex");
  const message = packFrame(frame.seq, frame.timestamp_ms, image);
  assert.equal(Buffer.from(message).toString("hex"), frame.message_hex);
  const back = unpackFrame(message);
  assert.deepEqual([back.seq, back.timestampMs], [frame.seq, frame.timestamp_ms]);
  assert.deepEqual([...back.image], [...image]);
});

test("says what is wrong with a frame", () => {
  const frame = packFrame(1, 2, new Uint8Array([1]));
  const changed = (index, value) => frame.map((byte, at) => (at === index ? value : byte));
  const message = (text) => ({ name: "ProtocolError", message: text });
  assert.throws(
    () => unpackFrame(new Uint8Array(16)),
    message("frame has 16 bytes, expected more than 16"),
  );
  assert.throws(() => unpackFrame(changed(2, 9)), message("frame has version 9, expected 1"));
  assert.throws(() => unpackFrame(changed(3, 1)), message("frame has flags 1, expected 0"));
  assert.throws(() => packFrame(-1, 0, new Uint8Array(1)), /found seq -1/);
  assert.throws(() => packFrame(0, 0.5, new Uint8Array(1)), /expected whole milliseconds/);
});

test("says what is wrong with a message", () => {
  assert.throws(() => parseServerMessage("{"), { message: 'found "{", expected JSON' });
  assert.throws(() => parseServerMessage("[]"), /without a type/);
  const created = JSON.parse(read("server.session.created.json"));
  created.limits.max_fps = "60";
  assert.throws(() => parseServerMessage(JSON.stringify(created)), {
    message: 'session.created.limits.max_fps: found "60", expected number',
  });
});

test("lets pass what a newer server may say", () => {
  assert.deepEqual(parseServerMessage('{"type":"later","x":1}'), { type: "later", x: 1 });
  assert.deepEqual(parseServerMessage('{"type":"pong","x":1}'), { type: "pong", x: 1 });
});

test("carries the key as a subprotocol that any token parser takes", () => {
  assert.deepEqual(subprotocols(), ["ovoad.v1"]);
  assert.deepEqual(subprotocols(""), ["ovoad.v1"]);
  const [, key] = subprotocols("schlüssel/+?~");
  assert.match(key, /^ovoad\.key\.[A-Za-z0-9_-]+$/);
  const back = Buffer.from(key.slice("ovoad.key.".length), "base64url").toString();
  assert.equal(back, "schlüssel/+?~");
});
