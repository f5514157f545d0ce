/**
 * Wire contract v1 in JavaScript: message types, parsing, the binary frame. Knows no socket and no page.
 *
 * All times are milliseconds. Messages are plain objects with the contract's own field names. A newer
 * server may say more than this file knows: unknown fields and message types pass through.
 */

/** @typedef {{labels: string[], templates?: string[], background?: string[]}} Vocabulary */
/** @typedef {"realtime" | "lossless"} Policy */
/** @typedef {{enter?: number, exit?: number, min_duration_ms?: number}} EventSettings */
/** @typedef {{encoder: string, scorer: string, fingerprint: string}} ModelInfo */
/** @typedef {{max_frame_bytes: number, max_pixels: number, max_labels: number, max_inflight: number,
 *   max_fps: number, idle_timeout_ms: number, max_session_ms: number}} Limits */
/** @typedef {{fps: number, past: number, neighbours: number}} WindowShape */
/** @typedef {{frames: number, span_ms: number, gaps: number, warming_up: boolean}} WindowState */
/** @typedef {{queue: number, decode: number, encode: number, score: number, total: number}} Timing */
/** @typedef {{label: string, probability: number, similarity: number}} RankedLabel */
/** @typedef {{assignment: number[][], foreground: number[]}} Grouping */
/** @typedef {{type: "session.create", vocabulary: Vocabulary, policy?: Policy, scorer?: string,
 *   top_k?: number, events?: EventSettings, resume?: {token: string, last_seq?: number}}} SessionCreate */
/** @typedef {{type: "session.created", session_id: string, protocol: number, model: ModelInfo,
 *   labels: string[], vocabulary_version: number, policy: Policy, limits: Limits, window: WindowShape,
 *   resume_token: string, resumed: boolean, next_seq?: number, warnings: string[]}} SessionCreated */
/** @typedef {{type: "prediction", seq: number, timestamp_ms: number, vocabulary_version: number,
 *   probabilities?: number[], background: number, similarities?: number[], top?: RankedLabel[],
 *   window: WindowState, timing_ms: Timing, backlog: number, grouping?: Grouping}} Prediction */
/** @typedef {{type: "frame.dropped", seq: number, timestamp_ms: number,
 *   reason: "busy" | "rate" | "stale"}} FrameDropped */
/** @typedef {{type: "event", kind: "start" | "end", label: string, timestamp_ms: number,
 *   probability: number, start_ms?: number}} ActionEvent */
/** @typedef {{type: "vocabulary.updated", vocabulary_version: number, labels: string[],
 *   from_seq: number, warnings: string[]}} VocabularyUpdated */
/** @typedef {{type: "session.was_reset"}} SessionWasReset */
/** @typedef {{type: "pong", nonce?: string}} Pong */
/** @typedef {{type: "error", code: string, message: string, fatal: boolean, transient: boolean,
 *   seq?: number, retry_after_ms?: number}} ErrorMessage */
/** @typedef {{type: "goaway", reason: string, time_left_ms: number}} GoAway */
/** @typedef {{type: "session.closed", reason: string, received: number, predicted: number,
 *   dropped: {busy: number, rate: number, stale: number}, errors: number}} SessionClosed */
/** @typedef {SessionCreated | Prediction | FrameDropped | ActionEvent | VocabularyUpdated
 *   | SessionWasReset | Pong | ErrorMessage | GoAway | SessionClosed} ServerMessage */

export const SUBPROTOCOL = "ovoad.v1";
export const KEY_SUBPROTOCOL = "ovoad.key."; // then the key as base64url without padding
export const FRAME_MAGIC = 0x564f; // "OV" read as little-endian bytes
export const FRAME_VERSION = 1;
export const FRAME_HEADER_BYTES = 16;
const MAX_SEQ = 2 ** 32 - 1;

/** A message that breaks the wire contract. */
export class ProtocolError extends Error {
  name = "ProtocolError";
}

/**
 * Field types of each server message: a name of typeof, "integer", [type] for a list of it, an object
 * for an object. A key that ends with "?" may be absent.
 * @typedef {string | [Shape] | {[field: string]: Shape}} Shape
 */

/** @type {Shape} */
const TIMING = { queue: "number", decode: "number", encode: "number", score: "number", total: "number" };

/** @type {{[type: string]: {[field: string]: Shape}}} */
const SERVER_MESSAGES = {
  "session.created": {
    session_id: "string",
    protocol: "integer",
    model: { encoder: "string", scorer: "string", fingerprint: "string" },
    labels: ["string"],
    vocabulary_version: "integer",
    policy: "string",
    limits: {
      max_frame_bytes: "integer",
      max_pixels: "integer",
      max_labels: "integer",
      max_inflight: "integer",
      max_fps: "number",
      idle_timeout_ms: "integer",
      max_session_ms: "integer",
    },
    window: { fps: "number", past: "integer", neighbours: "integer" },
    resume_token: "string",
    resumed: "boolean",
    "next_seq?": "integer",
    warnings: ["string"],
  },
  prediction: {
    seq: "integer",
    timestamp_ms: "integer",
    vocabulary_version: "integer",
    "probabilities?": ["number"],
    background: "number",
    "similarities?": ["number"],
    "top?": [{ label: "string", probability: "number", similarity: "number" }],
    window: { frames: "integer", span_ms: "integer", gaps: "integer", warming_up: "boolean" },
    timing_ms: TIMING,
    backlog: "integer",
    "grouping?": { assignment: [["number"]], foreground: ["number"] },
  },
  "frame.dropped": { seq: "integer", timestamp_ms: "integer", reason: "string" },
  event: {
    kind: "string",
    label: "string",
    timestamp_ms: "integer",
    probability: "number",
    "start_ms?": "integer",
  },
  "vocabulary.updated": {
    vocabulary_version: "integer",
    labels: ["string"],
    from_seq: "integer",
    warnings: ["string"],
  },
  "session.was_reset": {},
  pong: { "nonce?": "string" },
  error: {
    code: "string",
    message: "string",
    fatal: "boolean",
    transient: "boolean",
    "seq?": "integer",
    "retry_after_ms?": "integer",
  },
  goaway: { reason: "string", time_left_ms: "integer" },
  "session.closed": {
    reason: "string",
    received: "integer",
    predicted: "integer",
    dropped: { busy: "integer", rate: "integer", stale: "integer" },
    errors: "integer",
  },
};

/**
 * Parse a text message of the server.
 * @param {string} text
 * @returns {ServerMessage}
 * @throws {ProtocolError} naming the field, what was found and what was expected
 */
export function parseServerMessage(text) {
  /** @type {unknown} */
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new ProtocolError(`found ${JSON.stringify(text.slice(0, 40))}, expected JSON`);
  }
  const type = isRecord(found) ? found.type : undefined;
  if (!isRecord(found) || typeof type !== "string") {
    throw new ProtocolError("found a message without a type, expected an object with a type");
  }
  const shape = SERVER_MESSAGES[type];
  if (shape) checkShape(found, shape, type);
  return /** @type {ServerMessage} */ (/** @type {unknown} */ (found));
}

/**
 * @param {unknown} value
 * @returns {value is {[field: string]: unknown}}
 */
function isRecord(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * @param {unknown} value
 * @param {Shape} shape
 * @param {string} place
 */
function checkShape(value, shape, place) {
  if (typeof shape === "string") {
    const right = shape === "integer" ? Number.isInteger(value) : typeof value === shape;
    if (!right) throw new ProtocolError(`${place}: found ${describe(value)}, expected ${shape}`);
  } else if (Array.isArray(shape)) {
    if (!Array.isArray(value)) {
      throw new ProtocolError(`${place}: found ${describe(value)}, expected a list`);
    }
    value.forEach((item, index) => checkShape(item, shape[0], `${place}.${index}`));
  } else {
    if (!isRecord(value)) {
      throw new ProtocolError(`${place}: found ${describe(value)}, expected an object`);
    }
    for (const [key, inner] of Object.entries(shape)) {
      const field = key.replace("?", "");
      if (value[field] === undefined) {
        if (!key.endsWith("?")) throw new ProtocolError(`field ${place}.${field} is missing`);
      } else {
        checkShape(value[field], inner, `${place}.${field}`);
      }
    }
  }
}

/** @param {unknown} value */
function describe(value) {
  return (JSON.stringify(value) ?? "nothing").slice(0, 40);
}

/**
 * Return the binary message of one frame.
 * @param {number} seq 0 to 2**32 - 1
 * @param {number} timestampMs whole milliseconds
 * @param {ArrayBuffer | ArrayBufferView} image JPEG, PNG or WebP bytes
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function packFrame(seq, timestampMs, image) {
  if (!Number.isInteger(seq) || seq < 0 || seq > MAX_SEQ) {
    throw new ProtocolError(`found seq ${seq}, expected a whole number from 0 to ${MAX_SEQ}`);
  }
  if (!Number.isSafeInteger(timestampMs)) {
    throw new ProtocolError(`found timestamp ${timestampMs}, expected whole milliseconds`);
  }
  const bytes = toBytes(image);
  const message = new Uint8Array(FRAME_HEADER_BYTES + bytes.length);
  const header = new DataView(message.buffer);
  header.setUint16(0, FRAME_MAGIC, true);
  header.setUint8(2, FRAME_VERSION);
  header.setUint32(4, seq, true);
  header.setBigInt64(8, BigInt(timestampMs), true);
  message.set(bytes, FRAME_HEADER_BYTES);
  return message;
}

/**
 * Parse the binary message of one frame.
 * @param {ArrayBuffer | ArrayBufferView} message
 * @returns {{seq: number, timestampMs: number, image: Uint8Array}}
 */
export function unpackFrame(message) {
  const bytes = toBytes(message);
  if (bytes.length <= FRAME_HEADER_BYTES) {
    throw new ProtocolError(
      `frame has ${bytes.length} bytes, expected more than ${FRAME_HEADER_BYTES}`,
    );
  }
  const header = new DataView(bytes.buffer, bytes.byteOffset, FRAME_HEADER_BYTES);
  checkHeader("magic", header.getUint16(0, true), FRAME_MAGIC);
  checkHeader("version", header.getUint8(2), FRAME_VERSION);
  checkHeader("flags", header.getUint8(3), 0);
  return {
    seq: header.getUint32(4, true),
    timestampMs: Number(header.getBigInt64(8, true)),
    image: bytes.subarray(FRAME_HEADER_BYTES),
  };
}

/**
 * @param {string} name
 * @param {number} found
 * @param {number} expected
 */
function checkHeader(name, found, expected) {
  if (found !== expected) {
    throw new ProtocolError(`frame has ${name} ${found}, expected ${expected}`);
  }
}

/**
 * @param {ArrayBuffer | ArrayBufferView} data
 * @returns {Uint8Array}
 */
function toBytes(data) {
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/**
 * Return the WebSocket subprotocols to offer. Browsers cannot set an Authorization header on a
 * WebSocket, and a key in the address would end up in logs, so the key travels as a subprotocol.
 * @param {string} [apiKey]
 */
export function subprotocols(apiKey) {
  if (!apiKey) return [SUBPROTOCOL];
  const bytes = new TextEncoder().encode(apiKey);
  const base64 = btoa(String.fromCharCode(...bytes));
  const base64url = base64.replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  return [SUBPROTOCOL, KEY_SUBPROTOCOL + base64url];
}
