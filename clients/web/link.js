/**
 * Keep a page's session alive: connect, hand on its messages, begin anew where the page asks for it.
 * Knows no page; says honestly what it is doing.
 */

import { StreamError, connect } from "./ovoad.js";
import { delayMs } from "./reconnecting.js";

/** @typedef {import("./ovoad.js").Options} Options */
/** @typedef {import("./ovoad.js").Stream} Stream */
/** @typedef {import("./stream.js").StreamMessage} StreamMessage */
/** @typedef {import("./protocol.js").SessionCreated} SessionCreated */

/**
 * @typedef {{is: "connecting", attempt: number}
 *   | {is: "live"}
 *   | {is: "waiting", attempt: number, why: string, untilMs: number, wasLive: boolean}
 *   | {is: "refused", why: string, code?: string, closeCode?: number}
 *   | {is: "closed", why: string}} LinkState untilMs on the clock of performance.now()
 */

const RECONNECT = { firstMs: 500, longestMs: 15_000, giveUpMs: Infinity }; // a person is watching

export class Link {
  /** @type {Stream | undefined} */ #stream;
  /** @type {(() => void) | undefined} */ #wake;
  #stopped = false;
  #restarting = false;

  /**
   * @param {string} url
   * @param {() => Options} options asked anew for each session, so that it begins with today's words
   * @param {{state: (state: LinkState) => void, created: (created: SessionCreated) => void,
   *   message: (message: StreamMessage) => void}} listener
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
    while (!this.#stopped) {
      this.listener.state({ is: "connecting", attempt });
      try {
        const stream = await connect(this.url, { ...this.options(), reconnect: RECONNECT });
        if (this.#stopped) return stream.abort();
        attempt = 0;
        this.#stream = stream;
        this.listener.created(stream.created);
        this.listener.state({ is: "live" });
        const why = await this.#listen(stream);
        if (!this.#stopped) this.listener.state({ is: "closed", why });
        return;
      } catch (error) {
        this.#stream = undefined;
        if (!(error instanceof StreamError)) throw error;
        if (this.#stopped) return;
        if (this.#restarting) {
          this.#restarting = false;
        } else if (error.retryable) {
          attempt += 1;
          await this.#wait(attempt, error);
        } else {
          return this.#refused(error);
        }
      }
    }
  }

  /**
   * Hand on messages until the session ends; returns the reason.
   * @param {Stream} stream
   */
  async #listen(stream) {
    let why = "closed";
    try {
      for await (const message of stream) {
        if (message.type === "session.closed") why = message.reason;
        this.listener.message(message);
        this.#follow(message);
      }
    } finally {
      this.#stream = undefined;
    }
    return why;
  }

  /**
   * Tell of breaks.
   * @param {StreamMessage} message
   */
  #follow(message) {
    if (message.type === "client.reconnecting") {
      const { attempt, why } = message;
      const untilMs = performance.now() + message.wait_ms;
      this.listener.state({ is: "waiting", attempt, why, untilMs, wasLive: true });
    } else if (message.type === "session.created") {
      this.listener.created(message);
    } else if (message.type === "client.reconnected") {
      this.listener.state({ is: "live" });
    }
  }

  /** @param {StreamError} error */
  #refused(error) {
    const { message, code, closeCode } = error;
    this.listener.state({ is: "refused", why: message, code, closeCode });
  }

  /**
   * @param {number} attempt
   * @param {StreamError} error
   */
  async #wait(attempt, error) {
    const wait = delayMs(attempt, error.retryAfterMs, Math.random(), RECONNECT);
    const untilMs = performance.now() + wait;
    this.listener.state({ is: "waiting", attempt, why: error.message, untilMs, wasLive: false });
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
    this.#stream?.retryNow();
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
