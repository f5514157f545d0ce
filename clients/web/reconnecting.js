/** When and how soon to connect again after a break. Knows no socket and waits for nothing. */

import { StreamError } from "./errors.js";

/**
 * The first wait, the longest, and the time without a session that answers after which to give up.
 * @typedef {{firstMs: number, longestMs: number, giveUpMs: number}} Reconnect
 */

/** @type {Reconnect} */
export const RECONNECT = { firstMs: 250, longestMs: 8000, giveUpMs: 60_000 };

/**
 * Milliseconds to wait before an attempt: doubling, spread by a quarter so that a crowd of clients does
 * not come back at one instant; on top of what the server asked for.
 * @param {number} attempt 1 for the first after a break
 * @param {number} [retryAfterMs] what the server asked for
 * @param {number} [random] 0 to 1
 * @param {Reconnect} [reconnect]
 */
export function delayMs(attempt, retryAfterMs = 0, random = Math.random(), reconnect = RECONNECT) {
  const doubled = Math.min(reconnect.longestMs, reconnect.firstMs * 2 ** (attempt - 1));
  return retryAfterMs + doubled * (0.75 + 0.5 * random);
}

/** The time since a stream last worked, and the attempts made in it. */
export class Outage {
  attempt = 0;
  /** @type {number | undefined} */ #sinceMs;

  /** @param {Reconnect} reconnect */
  constructor(reconnect) {
    this.reconnect = reconnect;
  }

  /** The stream has worked again; the next break begins a new outage. */
  end() {
    this.attempt = 0;
    this.#sinceMs = undefined;
  }

  /**
   * The wait before the next attempt.
   * @param {StreamError} failure
   * @throws {StreamError} the failure where no attempt can help; another where the time is up
   */
  nextWaitMs(failure) {
    if (!failure.retryable) throw failure;
    const nowMs = performance.now();
    this.#sinceMs ??= nowMs;
    const spentMs = nowMs - this.#sinceMs;
    const wait = delayMs(this.attempt + 1, failure.retryAfterMs, Math.random(), this.reconnect);
    if (spentMs + wait > this.reconnect.giveUpMs) {
      const attempts = this.attempt === 1 ? "1 attempt" : `${this.attempt} attempts`;
      const seconds = (spentMs / 1000).toFixed(1);
      throw new StreamError(
        `gave up reconnecting after ${attempts} in ${seconds} s: ${failure.message}`,
        { code: failure.code },
      );
    }
    this.attempt += 1;
    return wait;
  }
}
