/**
 * Keep a session alive: connect, hand on its messages, and after a break connect again with back-off.
 * Knows no page; says honestly what it is doing.
 */

import { StreamError, connect } from "./ovoad.js";

/** @typedef {import("./ovoad.js").Options} Options */
/** @typedef {import("./ovoad.js").Stream} Stream */
/** @typedef {import("./protocol.js").ServerMessage} ServerMessage */
/** @typedef {import("./protocol.js").SessionCreated} SessionCreated */

/**
 * @typedef {{is: "connecting", attempt: number}
 *   | {is: "live"}
 *   | {is: "waiting", attempt: number, why: string, untilMs: number, wasLive: boolean}
 *   | {is: "refused", why: string, code?: string, closeCode?: number}
 *   | {is: "closed", why: string}} LinkState untilMs on the clock of performance.now()
 */

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;

/**
 * Milliseconds to wait before an attempt: doubling, spread by a quarter so that a crowd of pages does
 * not come back at one instant.
 * @param {number} attempt 1 for the first after a break
 * @param {number} [retryAfterMs] what the server asked for
 * @param {number} [random] 0 to 1
 */
export function delayMs(attempt, retryAfterMs = 0, random = Math.random()) {
  const doubled = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (attempt - 1));
  return Math.max(retryAfterMs, doubled * (0.75 + 0.5 * random));
}

export class Link {
  /** @type {Stream | undefined} */ #stream;
  /** @type {(() => void) | undefined} */ #wake;
  #stopped = false;
  #restarting = false;

  /**
   * @param {string} url
   * @param {() => Options} options asked anew for each session, so that it begins with today's words
   * @param {{state: (state: LinkState) => void, created: (created: SessionCreated) => void,
   *   message: (message: ServerMessage) => void}} listener
   */
  constructor(url, options, listener) {
    this.url = url;
    this.options = options;
    this.listener = listener;
  }

  /** The open session, while there is one. */
  get stream() {
    return this.#stream;
  }

  /** Run until stopped, closed by the server in order, or refused. */
  async run() {
    let attempt = 0;
    let wasLive = false;
    /** @type {SessionCreated | undefined} */
    let last;
    while (!this.#stopped) {
      this.listener.state({ is: "connecting", attempt });
      try {
        const resume = last && { token: last.resume_token };
        const stream = await connect(this.url, { ...this.options(), resume });
        if (this.#stopped) return stream.abort();
        last = stream.created;
        wasLive = true;
        this.#stream = stream;
        this.listener.created(stream.created);
        this.listener.state({ is: "live" });
        const why = await this.#listen(stream, () => (attempt = 0));
        if (this.#stopped) return;
        if (!this.#restarting) return this.listener.state({ is: "closed", why });
        this.#restarting = false;
        last = undefined;
      } catch (error) {
        this.#stream = undefined;
        if (!(error instanceof StreamError)) throw error;
        if (this.#stopped) return;
        if (!error.retryable) return this.#refused(error);
        attempt += 1;
        await this.#wait(attempt, error, wasLive);
      }
    }
  }

  /**
   * Hand on messages until the session ends; returns the reason.
   * @param {Stream} stream
   * @param {() => void} onPrediction
   */
  async #listen(stream, onPrediction) {
    let why = "closed";
    try {
      for await (const message of stream) {
        if (message.type === "prediction") onPrediction();
        if (message.type === "session.closed") why = message.reason;
        this.listener.message(message);
      }
    } finally {
      this.#stream = undefined;
    }
    return why;
  }

  /** @param {StreamError} error */
  #refused(error) {
    const { message, code, closeCode } = error;
    this.listener.state({ is: "refused", why: message, code, closeCode });
  }

  /**
   * @param {number} attempt
   * @param {StreamError} error
   * @param {boolean} wasLive
   */
  async #wait(attempt, error, wasLive) {
    const wait = delayMs(attempt, error.retryAfterMs);
    const untilMs = performance.now() + wait;
    this.listener.state({ is: "waiting", attempt, why: error.message, untilMs, wasLive });
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, wait);
      this.#wake = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
  }

  /** Try again at once instead of waiting. */
  retryNow() {
    this.#wake?.();
  }

  /** Begin a new session now, with today's options. */
  restart() {
    this.#restarting = this.#stream !== undefined;
    this.#stream?.abort();
  }

  /** End the session in order, and do not come back. */
  async stop() {
    this.#stopped = true;
    this.#wake?.();
    await this.#stream?.close().catch(() => this.#stream?.abort());
  }
}
