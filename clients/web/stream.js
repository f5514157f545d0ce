/** An open session, over every connection that carries it. Knows no video and no page. */

import { Connection, Waiter } from "./connection.js";
import { StreamError } from "./errors.js";
import { Ledger, pack } from "./ledger.js";
import { ProtocolError, packFrame } from "./protocol.js";
import { Outage, RECONNECT } from "./reconnecting.js";

/** @typedef {import("./protocol.js").ServerMessage} ServerMessage */
/** @typedef {import("./protocol.js").SessionCreated} SessionCreated */
/** @typedef {import("./protocol.js").SessionClosed} SessionClosed */
/** @typedef {import("./protocol.js").SessionCreate} SessionCreate */
/** @typedef {import("./protocol.js").VocabularyUpdated} VocabularyUpdated */
/** @typedef {import("./protocol.js").Vocabulary} Vocabulary */
/** @typedef {import("./ovoad.js").Options} Options */

// What the stream tells of itself between the server's messages; never on the wire.
/** @typedef {{type: "client.reconnecting", why: string, attempt: number, wait_ms: number}} Reconnecting */
/** @typedef {{type: "client.reconnected", resumed: boolean, sent_again: number[]}} Reconnected */
/** @typedef {{type: "client.frames_lost", seqs: number[]}} FramesLost frames that get no answer */
/** @typedef {ServerMessage | Reconnecting | Reconnected | FramesLost} StreamMessage */

const MAX_UNREAD_MESSAGES = 4096;

/**
 * An open session: send frames, iterate over the server's messages, change the words.
 *
 * Iterating yields every message after the first session.created, session.closed being the last, and
 * throws StreamError when the session fails. Messages wait until they are read, at most 4096.
 *
 * After a break the stream connects again by itself, and the iterator tells: client.reconnecting for
 * each attempt, then the new session.created and client.reconnected. Frames that the server had not
 * got are sent again (lossless) or named by client.frames_lost (realtime); no answer and no event is
 * told twice. Requests that a break interrupts are repeated. A fresh session begins with the newest
 * words that the server took. The session.closed of a server's restart is not told: the stream goes on.
 */
export class Stream {
  /** @type {Ledger | undefined} */ #debts;
  /** @type {Connection | undefined} */ #newest;
  /** @type {StreamMessage[]} */ #unread = [];
  /** @type {Waiter<void>} */ #news = new Waiter();
  /** @type {Waiter<SessionClosed>} */ #closed = new Waiter();
  /** @type {Promise<void>} */ #sending = Promise.resolve();
  /** @type {StreamError | undefined} */ #failure;
  /** @type {(() => void) | undefined} */ #wake;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #watching;
  #outage;
  #connected = false;
  #closing = false;
  #ended = false;
  #lastTimestampMs = -Infinity;
  #connectedAtMs = 0;
  #heardAtMs = 0; // of the last message, or of the first thing owed after it

  /**
   * @param {string} url
   * @param {Options} options
   */
  constructor(url, options) {
    this.url = url;
    this.options = options;
    this.timeoutMs = options.timeoutMs ?? 30_000;
    this.#outage = new Outage({ ...RECONNECT, ...options.reconnect });
  }

  /** @param {SessionCreate} create */
  async open(create) {
    await this.#connect(create);
  }

  /** What the server granted, at the newest connection. */
  get created() {
    return this.#ledger.created;
  }

  /** Whether there is a connection now; without one, frames of a realtime stream are lost. */
  get connected() {
    return this.#connected;
  }

  /** Frames sent that have no answer yet. */
  get unanswered() {
    return this.#ledger.frames.size;
  }

  /** Bytes that wait in the WebSocket: a slow network shows here first. */
  get bufferedBytes() {
    return this.#connection.socket.bufferedAmount;
  }

  /**
   * Send one JPEG, PNG or WebP image and return its seq.
   * @param {Blob | ArrayBuffer | ArrayBufferView} image
   * @param {number} timestampMs whole, later than the last frame's
   */
  sendFrame(image, timestampMs) {
    this.#throwIfEnded();
    if (timestampMs <= this.#lastTimestampMs) {
      throw new ProtocolError(
        `found timestamp ${timestampMs} ms, expected more than ${this.#lastTimestampMs} ms`,
      );
    }
    const bytes = image instanceof Blob ? image : packFrame(this.#ledger.nextSeq, timestampMs, image);
    this.#lastTimestampMs = timestampMs;
    const seq = this.#ledger.pushFrame(image, timestampMs);
    this.#expect();
    const packed = async () => bytes instanceof Blob ? pack(seq, timestampMs, bytes) : bytes;
    if (this.#connected) this.#send(packed);
    return seq;
  }

  /**
   * Replace the words from the next frame on; resolves when they are in force.
   * @param {Vocabulary} vocabulary
   * @returns {Promise<VocabularyUpdated>} rejects with StreamError when the server refuses them
   */
  updateVocabulary(vocabulary) {
    return this.#ask({ type: "vocabulary.update", vocabulary }, "vocabulary.updated");
  }

  /** Forget all past frames. */
  reset() {
    return this.#ask({ type: "session.reset" }, "session.was_reset");
  }

  /** Ask for a sign of life; it also keeps a session without frames from idling out. */
  ping() {
    return this.#ask({ type: "ping" }, "pong");
  }

  /**
   * Let the server answer what is under way, then end. Without a connection it is tried at once, and
   * given up after one attempt unless a lossless stream still waits for answers.
   * @returns {Promise<SessionClosed>}
   */
  close() {
    if (!this.#ended && !this.#closing) {
      this.#closing = true;
      this.#heardAtMs = performance.now();
      this.#expect();
      if (this.#connected) this.#send(async () => JSON.stringify({ type: "session.close" }));
      this.#wake?.();
    }
    return this.#closed.promise;
  }

  /** Leave at once; the server is told, so that it keeps no place for a comeback. */
  abort() {
    if (this.#connected) this.#connection.send(JSON.stringify({ type: "session.close" }));
    this.#finish(new StreamError("aborted"));
    this.#connection.fail(new StreamError("aborted"));
  }

  /** Try again at once instead of waiting. */
  retryNow() {
    this.#wake?.();
  }

  /** @returns {AsyncGenerator<StreamMessage, void, void>} */
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

  get #ledger() {
    if (!this.#debts) throw new StreamError("found no session.created yet");
    return this.#debts;
  }

  get #connection() {
    if (!this.#newest) throw new StreamError("found no connection yet");
    return this.#newest;
  }

  // ---- sending --------------------------------------------------------------------------------

  /**
   * Send in the order of the calls, also where a Blob must be read first.
   * @param {() => Promise<Uint8Array<ArrayBuffer> | string>} make
   */
  #send(make) {
    const connection = this.#connection;
    this.#sending = this.#sending
      .then(async () => connection.send(await make()))
      .catch((error) => connection.fail(new StreamError(String(error))));
  }

  /**
   * Ask, and wait for the reply; time without a connection does not count.
   * @param {import("./ledger.js").RequestMessage} message
   * @param {string} expected
   */
  async #ask(message, expected) {
    this.#throwIfEnded();
    const { waiter } = this.#ledger.pushRequest(message);
    this.#expect();
    if (this.#connected) this.#send(async () => JSON.stringify(message));
    const askedAtMs = performance.now();
    const look = () => {
      const sinceMs = performance.now() - Math.max(askedAtMs, this.#connectedAtMs);
      if (!this.#connected || sinceMs < this.timeoutMs) return;
      const text = `found no answer in ${this.timeoutMs} ms, expected ${expected}`;
      waiter.reject(new StreamError(text));
    };
    const timer = setInterval(look, this.timeoutMs);
    try {
      return await waiter.promise;
    } finally {
      clearInterval(timer);
    }
  }

  /** An answer becomes due: from now on silence counts. */
  #expect() {
    if (this.#ledger.owed === 1 && !this.#closing) this.#heardAtMs = performance.now();
    if (this.#ledger.owed === 1 || this.#closing) this.#watch(this.#connection);
  }

  #throwIfEnded() {
    if (this.#ended || this.#closing) {
      throw this.#failure ?? new StreamError("the session has ended");
    }
  }

  // ---- connections ----------------------------------------------------------------------------

  /** @param {SessionCreate} create */
  async #connect(create) {
    const connection = new Connection(this.url, this.options, create, {
      created: (created) => this.#begin(connection, create, created),
      message: (message) => this.#take(connection, message),
      end: (failure) => this.#carryOn(connection, failure),
    });
    this.#newest = connection;
    await connection.opened(this.options.openTimeoutMs ?? 10_000);
  }

  /**
   * @param {Connection} connection
   * @param {SessionCreate} create
   * @param {SessionCreated} created
   */
  #begin(connection, create, created) {
    if (this.#ended) return connection.fail(new StreamError("aborted"));
    this.#connected = true;
    this.#connectedAtMs = this.#heardAtMs = performance.now();
    if (this.#debts) this.#goOn(created);
    else this.#debts = new Ledger({ ...create, resume: undefined }, created);
    this.#watch(connection);
  }

  /**
   * Leave a connection that stays silent where an answer is due.
   * @param {Connection} connection
   */
  #watch(connection) {
    clearTimeout(this.#watching);
    if (!this.#connected || (this.#ledger.owed === 0 && !this.#closing)) return;
    const leftMs = this.#heardAtMs + this.timeoutMs - performance.now();
    if (leftMs <= 0) {
      const what = this.unanswered ? `frame ${[...this.#ledger.frames.keys()][0]}` : "a request";
      const text = `found no answer in ${this.timeoutMs} ms to ${what}`;
      connection.silent = true;
      return connection.fail(new StreamError(text, { closeCode: 1006 }));
    }
    this.#watching = setTimeout(() => this.#watch(connection), leftMs);
    /** @type {{unref?: () => void}} */ (this.#watching).unref?.(); // the socket keeps node awake
  }

  /**
   * @param {Connection} connection
   * @param {ServerMessage} message
   */
  #take(connection, message) {
    if (connection !== this.#newest || this.#ended) return;
    this.#heardAtMs = performance.now();
    const { owed } = this.#ledger;
    const news = this.#ledger.take(message);
    connection.proved ||= this.#ledger.owed < owed;
    if (news && message.type !== "session.closed") this.#tell(message); // that one: once it is the last
    if (this.#unread.length >= MAX_UNREAD_MESSAGES) {
      throw new Error(`found ${MAX_UNREAD_MESSAGES} unread messages, expected iteration`);
    }
  }

  /** @param {StreamMessage} message */
  #tell(message) {
    this.#unread.push(message);
    this.#news.resolve();
  }

  /**
   * A connection has ended: end the stream, or come back.
   * @param {Connection} connection
   * @param {StreamError} failure
   */
  async #carryOn(connection, failure) {
    if (this.#ended) return;
    this.#connected = false;
    clearTimeout(this.#watching);
    const { reconnect } = this.options;
    const goesOn = failure.closeCode === 1012 && reconnect !== false && this.#isWanted();
    if (connection.closed && !failure.code && !goesOn) return this.#finish(undefined);
    const lastedMs = performance.now() - this.#connectedAtMs;
    const worked = !connection.silent && lastedMs > this.#outage.reconnect.longestMs;
    if (connection.proved || worked) this.#outage.end();
    try {
      if (reconnect === false) throw failure;
      await this.#connectAgain(failure);
    } catch (error) {
      if (!(error instanceof StreamError)) throw error;
      this.#finish(error);
    }
  }

  /** @param {StreamError} failure */
  async #connectAgain(failure) {
    for (let why = failure; ; ) {
      const waitMs = this.#outage.nextWaitMs(why);
      const { attempt } = this.#outage;
      this.#tell({ type: "client.reconnecting", why: why.message, attempt, wait_ms: waitMs });
      await this.#pause(waitMs);
      if (this.#ended) return;
      const isWanted = this.#isWanted();
      try {
        return await this.#connect(this.#ledger.createAgain());
      } catch (error) {
        if (!(error instanceof StreamError) || !isWanted) throw error;
        why = error;
      }
    }
  }

  /** Whether a connection is worth more than one attempt: not only to close. */
  #isWanted() {
    return !this.#closing || (this.#ledger.lossless && this.unanswered > 0);
  }

  /**
   * Wait; close() and retryNow() end the waiting.
   * @param {number} waitMs
   */
  async #pause(waitMs) {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, waitMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
    this.#wake = undefined;
  }

  /**
   * Send again what the server has not got.
   * @param {SessionCreated} created
   */
  #goOn(created) {
    const { again, sentAgain, lost } = this.#ledger.goOn(created);
    this.#tell(created);
    this.#tell({ type: "client.reconnected", resumed: created.resumed, sent_again: sentAgain });
    if (lost.length) this.#tell({ type: "client.frames_lost", seqs: lost });
    for (const what of again) {
      if ("type" in what) this.#send(async () => JSON.stringify(what));
      else this.#send(() => pack(what.seq, what.timestampMs, what.image));
    }
    if (this.#closing) this.#send(async () => JSON.stringify({ type: "session.close" }));
  }

  /** @param {StreamError | undefined} failure */
  #finish(failure) {
    if (this.#ended) return;
    this.#connected = false;
    this.#ended = true;
    this.#failure = failure;
    clearTimeout(this.#watching);
    this.#wake?.();
    const { closed } = this.#connection;
    const lost = this.#ledger.giveUp(failure ?? new StreamError("the session has ended"));
    if (lost.length) this.#tell({ type: "client.frames_lost", seqs: lost });
    if (!failure && closed) {
      this.#tell(closed);
      this.#closed.resolve(closed);
    }
    this.#closed.reject(failure ?? new StreamError("the session has ended"));
    this.#news.resolve();
  }
}
