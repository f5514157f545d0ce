/**
 * Stream frames to an ovoad server and read its answers. Knows no video and no page.
 *
 *     import { connect } from "./ovoad.js";
 *     const stream = await connect("http://127.0.0.1:8000", { labels: ["riding a bicycle"] });
 *     stream.sendFrame(jpeg, 0); // a Blob or bytes, and the frame's own time in ms
 *     for await (const message of stream)
 *       if (message.type === "prediction") console.log(message.probabilities, message.background);
 *
 * Runs in browsers and in node 22; node 20 needs --experimental-websocket, or a WebSocket class of a
 * package given as `WebSocket`.
 */

import { ProtocolError, packFrame, parseServerMessage, subprotocols } from "./protocol.js";

export * from "./protocol.js";

/** @typedef {import("./protocol.js").ServerMessage} ServerMessage */
/** @typedef {import("./protocol.js").SessionCreated} SessionCreated */
/** @typedef {import("./protocol.js").SessionClosed} SessionClosed */
/** @typedef {import("./protocol.js").VocabularyUpdated} VocabularyUpdated */
/** @typedef {import("./protocol.js").Vocabulary} Vocabulary */
/** @typedef {import("./protocol.js").EventSettings} EventSettings */
/** @typedef {import("./protocol.js").Policy} Policy */
/** @typedef {import("./protocol.js").ErrorMessage} ErrorMessage */

/**
 * @typedef {object} Options
 * @property {string[]} labels actions in plain words
 * @property {string[]} [templates] prompts with one "{}" each
 * @property {string[]} [background] sentences that mean "none of these"
 * @property {Policy} [policy] realtime (the newest frame wins) or lossless (each frame is predicted)
 * @property {string} [scorer]
 * @property {number} [topK] only the best K labels in each prediction
 * @property {EventSettings} [events]
 * @property {string} [apiKey]
 * @property {{token: string, last_seq?: number}} [resume] of a broken session's session.created
 * @property {number} [openTimeoutMs] until session.created, default 10 000
 * @property {number} [timeoutMs] for every other answer that is due, default 30 000
 * @property {typeof globalThis.WebSocket} [WebSocket]
 */

const MAX_UNREAD_MESSAGES = 4096;
const RETRYABLE_CLOSE_CODES = new Set([1001, 1005, 1006, 1011, 1012, 1013]);
const CLOSE_REASONS = new Map([
  [1006, "connection broken"],
  [1008, "protocol breach"],
  [1009, "message too large"],
  [1011, "server fault"],
  [1012, "server restarts"],
  [1013, "server at capacity"],
  [4401, "not authorised"],
]);

/** Why a session could not begin or did not end in order. */
export class StreamError extends Error {
  name = "StreamError";

  /**
   * @param {string} message
   * @param {{code?: string, closeCode?: number, retryAfterMs?: number}} [facts] code of the server's
   *   error, code of the WebSocket's close
   */
  constructor(message, facts = {}) {
    super(message);
    this.code = facts.code;
    this.closeCode = facts.closeCode;
    this.retryAfterMs = facts.retryAfterMs;
  }

  /** Whether connecting again later can help. */
  get retryable() {
    return this.closeCode !== undefined && RETRYABLE_CLOSE_CODES.has(this.closeCode);
  }
}

/**
 * Return the WebSocket address: host:port, http://host:port and ws://host:port/v1/stream all do.
 * @param {string} url
 */
export function streamAddress(url) {
  const parsed = new URL(/^[a-z]+:\/\//i.test(url) ? url : `ws://${url}`);
  parsed.protocol = parsed.protocol.replace("http", "ws");
  if (parsed.pathname === "/") parsed.pathname = "/v1/stream";
  return parsed.href;
}

/**
 * Open a session.
 * @param {string} url
 * @param {Options} options
 * @returns {Promise<Stream>}
 * @throws {StreamError}
 */
export async function connect(url, options) {
  const WebSocketClass = options.WebSocket ?? globalThis.WebSocket;
  if (!WebSocketClass) {
    throw new StreamError("found no WebSocket, expected node 22, or the option WebSocket");
  }
  const socket = new WebSocketClass(streamAddress(url), subprotocols(options.apiKey));
  const stream = new Stream(socket, createMessage(options), options.timeoutMs ?? 30_000);
  await stream.opened(options.openTimeoutMs ?? 10_000);
  return stream;
}

/** @param {Options} options */
function createMessage(options) {
  const { labels, templates, background, policy, scorer, topK, events, resume } = options;
  const vocabulary = { labels, templates, background };
  return { type: "session.create", vocabulary, policy, scorer, top_k: topK, events, resume };
}

/**
 * A promise with its handles.
 * @template T
 */
class Waiter {
  constructor() {
    /** @type {(value: T) => void} */
    this.resolve = () => {};
    /** @type {(error: Error) => void} */
    this.reject = () => {};
    /** @type {Promise<T>} */
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.promise.catch(() => {}); // whoever waits is told; nobody may wait
  }
}

/**
 * An open session: send frames, iterate over the server's messages, change the words.
 *
 * Iterating yields every message after session.created, session.closed being the last, and throws
 * StreamError when the session breaks. Messages wait until they are read, at most 4096.
 */
export class Stream {
  /** @type {WebSocket} */ #socket;
  /** @type {number} */ #timeoutMs;
  /** @type {SessionCreated | undefined} */ #created;
  /** @type {ServerMessage[]} */ #unread = [];
  /** @type {Set<number>} */ #unanswered = new Set();
  /** @type {Waiter<void>} */ #opened = new Waiter();
  /** @type {Waiter<void>} */ #news = new Waiter();
  /** @type {Waiter<VocabularyUpdated>[]} */ #updates = [];
  /** @type {Waiter<void>[]} */ #resets = [];
  /** @type {Waiter<void>[]} */ #pings = [];
  /** @type {Waiter<SessionClosed>} */ #closed = new Waiter();
  /** @type {Promise<void>} */ #sending = Promise.resolve();
  /** @type {ErrorMessage | undefined} */ #fatal;
  /** @type {StreamError | undefined} */ #failure;
  #ended = false;
  #nextSeq = 0;
  #lastTimestampMs = -Infinity;

  /**
   * @param {WebSocket} socket
   * @param {object} create
   * @param {number} timeoutMs
   */
  constructor(socket, create, timeoutMs) {
    this.#socket = socket;
    this.#timeoutMs = timeoutMs;
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => socket.send(JSON.stringify(create)));
    socket.addEventListener("message", (event) => this.#receive(event.data));
    socket.addEventListener("close", (event) => this.#finish(event.code, event.reason));
    socket.addEventListener("error", () => {}); // a close event follows and says more
  }

  /** What the server granted. @returns {SessionCreated} */
  get created() {
    if (!this.#created) throw new StreamError("found no session.created yet");
    return this.#created;
  }

  /** Frames sent that have no answer yet. */
  get unanswered() {
    return this.#unanswered.size;
  }

  /** Bytes that wait in the WebSocket: a slow network shows here first. */
  get bufferedBytes() {
    return this.#socket.bufferedAmount;
  }

  /**
   * Wait for session.created.
   * @param {number} timeoutMs
   */
  async opened(timeoutMs) {
    await this.#inTime(this.#opened.promise, timeoutMs, "session.created");
  }

  /**
   * Send one JPEG, PNG or WebP image and return its seq.
   * @param {Blob | ArrayBuffer | ArrayBufferView} image
   * @param {number} timestampMs whole, later than the last frame's
   */
  sendFrame(image, timestampMs) {
    if (this.#ended) throw this.#failure ?? new StreamError("the session has ended");
    if (timestampMs <= this.#lastTimestampMs) {
      throw new ProtocolError(
        `found timestamp ${timestampMs} ms, expected more than ${this.#lastTimestampMs} ms`,
      );
    }
    const seq = this.#nextSeq;
    const packed = image instanceof Blob ? undefined : packFrame(seq, timestampMs, image);
    this.#nextSeq += 1;
    this.#lastTimestampMs = timestampMs;
    this.#unanswered.add(seq);
    this.#send(async () => {
      if (packed) return packed;
      return packFrame(seq, timestampMs, await /** @type {Blob} */ (image).arrayBuffer());
    });
    return seq;
  }

  /**
   * Replace the words from the next frame on; resolves when they are in force.
   * @param {Vocabulary} vocabulary
   * @returns {Promise<VocabularyUpdated>} rejects with StreamError when the server refuses them
   */
  updateVocabulary(vocabulary) {
    /** @type {Waiter<VocabularyUpdated>} */
    const waiter = new Waiter();
    this.#updates.push(waiter);
    this.#sendMessage({ type: "vocabulary.update", vocabulary }, waiter);
    return this.#inTime(waiter.promise, this.#timeoutMs, "vocabulary.updated");
  }

  /** Forget all past frames. */
  reset() {
    /** @type {Waiter<void>} */
    const waiter = new Waiter();
    this.#resets.push(waiter);
    this.#sendMessage({ type: "session.reset" }, waiter);
    return this.#inTime(waiter.promise, this.#timeoutMs, "session.was_reset");
  }

  /** Ask for a sign of life; it also keeps a session without frames from idling out. */
  ping() {
    /** @type {Waiter<void>} */
    const waiter = new Waiter();
    this.#pings.push(waiter);
    this.#sendMessage({ type: "ping" }, waiter);
    return this.#inTime(waiter.promise, this.#timeoutMs, "pong");
  }

  /** Let the server answer what is under way, then end. @returns {Promise<SessionClosed>} */
  close() {
    if (!this.#ended) this.#sendMessage({ type: "session.close" }, this.#closed);
    return this.#inTime(this.#closed.promise, this.#timeoutMs, "session.closed");
  }

  /** Drop the connection at once. */
  abort() {
    this.#socket.close();
    this.#finish(1000, "aborted");
  }

  /** @returns {AsyncGenerator<ServerMessage, void, void>} */
  async *[Symbol.asyncIterator]() {
    for (;;) {
      const message = this.#unread.shift();
      if (message) {
        yield message;
      } else if (this.#failure) {
        throw this.#failure;
      } else if (this.#ended) {
        return;
      } else {
        await this.#news.promise;
        this.#news = new Waiter();
      }
    }
  }

  /**
   * Send in the order of the calls, also where a Blob must be read first.
   * @param {() => Promise<Uint8Array<ArrayBuffer> | string>} make
   */
  #send(make) {
    this.#sending = this.#sending
      .then(async () => {
        const data = await make();
        if (this.#socket.readyState === 1) this.#socket.send(data);
      })
      .catch((error) => this.#fail(new StreamError(String(error))));
  }

  /**
   * @param {object} message
   * @param {{reject: (error: Error) => void}} waiter
   */
  #sendMessage(message, waiter) {
    if (this.#ended) waiter.reject(this.#failure ?? new StreamError("the session has ended"));
    else this.#send(async () => JSON.stringify(message));
  }

  /** @param {string} data */
  #receive(data) {
    try {
      this.#take(parseServerMessage(data));
    } catch (error) {
      this.#fail(new StreamError(String(error)));
    }
  }

  /** @param {ServerMessage} message */
  #take(message) {
    if (message.type === "session.created") {
      this.#created = message;
      this.#nextSeq = message.next_seq ?? 0;
      this.#opened.resolve();
      return;
    }
    if ("seq" in message && message.seq !== undefined) this.#unanswered.delete(message.seq);
    if (message.type === "vocabulary.updated") this.#updates.shift()?.resolve(message);
    if (message.type === "session.was_reset") this.#resets.shift()?.resolve();
    if (message.type === "pong") this.#pings.shift()?.resolve();
    if (message.type === "session.closed") this.#closed.resolve(message);
    if (message.type === "error") this.#takeError(message);
    if (this.#unread.length >= MAX_UNREAD_MESSAGES) {
      throw new Error(`found ${MAX_UNREAD_MESSAGES} unread messages, expected iteration`);
    }
    this.#unread.push(message);
    this.#news.resolve();
  }

  /** @param {ErrorMessage} error */
  #takeError(error) {
    if (error.fatal) this.#fatal = error;
    const aboutWords = error.code === "bad_vocabulary" || error.code === "bad_message";
    if (!error.fatal && error.seq === undefined && aboutWords) {
      this.#updates.shift()?.reject(new StreamError(error.message, { code: error.code }));
    }
  }

  /** @param {StreamError} failure */
  #fail(failure) {
    this.#failure ??= failure;
    this.#socket.close();
    this.#finish(1006, "");
  }

  /**
   * @param {number} closeCode
   * @param {string} reason
   */
  #finish(closeCode, reason) {
    if (this.#ended) return;
    this.#ended = true;
    const early = !this.#created;
    if (closeCode !== 1000 || this.#fatal || early) {
      const why = this.#fatal?.message || reason || CLOSE_REASONS.get(closeCode);
      const facts = { code: this.#fatal?.code, retryAfterMs: this.#fatal?.retry_after_ms };
      const text = why ?? `connection closed with code ${closeCode}`;
      this.#failure ??= new StreamError(text, { ...facts, closeCode });
    }
    const failure = this.#failure ?? new StreamError("the session has ended");
    const waiting = [this.#updates, this.#resets, this.#pings].flat();
    for (const waiter of [this.#opened, this.#closed, ...waiting]) waiter.reject(failure);
    this.#news.resolve();
  }

  /**
   * @template T
   * @param {Promise<T>} promise
   * @param {number} timeoutMs
   * @param {string} expected
   * @returns {Promise<T>}
   */
  async #inTime(promise, timeoutMs, expected) {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => {
        const failure = new StreamError(`found no answer in ${timeoutMs} ms, expected ${expected}`, {
          closeCode: 1006,
        });
        this.#fail(failure);
        reject(failure);
      }, timeoutMs);
    });
    try {
      return /** @type {T} */ (await Promise.race([promise, late]));
    } finally {
      clearTimeout(timer);
    }
  }
}
