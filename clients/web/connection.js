/** One connection to a server, from its address to its end. Knows no other connection. */

import { StreamError, closeError } from "./errors.js";
import { parseServerMessage, subprotocols } from "./protocol.js";

/** @typedef {import("./protocol.js").ServerMessage} ServerMessage */
/** @typedef {import("./protocol.js").SessionCreated} SessionCreated */
/** @typedef {import("./protocol.js").SessionClosed} SessionClosed */
/** @typedef {import("./protocol.js").SessionCreate} SessionCreate */
/** @typedef {import("./protocol.js").ErrorMessage} ErrorMessage */

const LAST_CLOSE_MS = 2000; // from session.closed to the close of the connection

/**
 * @typedef {object} Listener
 * @property {(created: SessionCreated) => void} created
 * @property {(message: ServerMessage) => void} message everything after session.created
 * @property {(failure: StreamError) => void} end once, after session.created had come
 */

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
 * A promise with its handles.
 * @template T
 */
export class Waiter {
  settled = false;

  constructor() {
    /** @type {(value: T) => void} */
    this.resolve = () => {};
    /** @type {(error: Error) => void} */
    this.reject = () => {};
    /** @type {Promise<T>} */
    this.promise = new Promise((resolve, reject) => {
      this.resolve = (value) => resolve(this.#settle(value));
      this.reject = (error) => reject(this.#settle(error));
    });
    this.promise.catch(() => {}); // whoever waits is told; nobody may wait
  }

  /**
   * @template V
   * @param {V} value
   */
  #settle(value) {
    this.settled = true;
    return value;
  }
}

export class Connection {
  /** @type {SessionCreated | undefined} */ created;
  /** @type {SessionClosed | undefined} */ closed;
  silent = false; // it was left because it stayed silent
  proved = false; // it has brought something that was waited for
  /** @type {Waiter<SessionCreated>} */ #opened = new Waiter();
  /** @type {ErrorMessage | undefined} */ #fatal;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #leaving;
  #ended = false;

  /**
   * @param {string} url
   * @param {{apiKey?: string, WebSocket?: typeof globalThis.WebSocket}} options
   * @param {SessionCreate} create
   * @param {Listener} listener
   */
  constructor(url, options, create, listener) {
    const WebSocketClass = options.WebSocket ?? globalThis.WebSocket;
    if (!WebSocketClass) {
      throw new StreamError("found no WebSocket, expected node 22, or the option WebSocket");
    }
    this.listener = listener;
    this.socket = new WebSocketClass(streamAddress(url), subprotocols(options.apiKey));
    this.socket.binaryType = "arraybuffer";
    this.socket.addEventListener("open", () => this.socket.send(JSON.stringify(create)));
    this.socket.addEventListener("message", (event) => this.#receive(event.data));
    this.socket.addEventListener("close", (event) => this.#close(event.code, event.reason));
    this.socket.addEventListener("error", () => {}); // a close event follows and says more
  }

  /**
   * Wait for session.created.
   * @param {number} timeoutMs
   */
  async opened(timeoutMs) {
    const timer = setTimeout(() => {
      const text = `found no answer in ${timeoutMs} ms, expected session.created`;
      this.fail(new StreamError(text, { closeCode: 1006 }));
    }, timeoutMs);
    try {
      return await this.#opened.promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** @param {string | Uint8Array<ArrayBuffer>} data */
  send(data) {
    if (this.socket.readyState === 1) this.socket.send(data);
  }

  /**
   * Leave this connection.
   * @param {StreamError} failure
   */
  fail(failure) {
    this.#end(failure);
    this.socket.close();
  }

  /** @param {string} data */
  #receive(data) {
    if (this.#ended) return;
    try {
      this.#take(parseServerMessage(data));
    } catch (error) {
      this.fail(error instanceof StreamError ? error : new StreamError(String(error)));
    }
  }

  /** @param {ServerMessage} message */
  #take(message) {
    if (message.type === "error" && message.fatal) this.#fatal = message;
    if (message.type === "session.closed") {
      this.closed = message;
      this.#leaving = setTimeout(() => this.fail(closeError(1000, "")), LAST_CLOSE_MS);
    }
    if (message.type === "session.created") {
      this.created = message;
      this.listener.created(message);
      this.#opened.resolve(message);
    } else if (this.created) {
      this.listener.message(message);
    }
  }

  /**
   * @param {number} closeCode
   * @param {string} reason
   */
  #close(closeCode, reason) {
    this.#end(closeError(closeCode, reason, this.#fatal));
  }

  /** @param {StreamError} failure */
  #end(failure) {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#leaving);
    this.#opened.reject(failure);
    if (this.created) this.listener.end(failure);
  }
}
