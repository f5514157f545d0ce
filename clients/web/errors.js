/** Why a session could not begin or did not end in order. */

const RETRYABLE_CLOSE_CODES = new Set([1001, 1005, 1006, 1011, 1012, 1013]);
const RETRYABLE_ERRORS = new Set(["capacity", "restarting", "internal"]);
const CLOSE_REASONS = new Map([
  [1006, "connection broken"],
  [1008, "protocol breach"],
  [1009, "message too large"],
  [1011, "server fault"],
  [1012, "server restarts"],
  [1013, "server at capacity"],
  [4401, "not authorised"],
]);

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
    if (this.closeCode === undefined || !RETRYABLE_CLOSE_CODES.has(this.closeCode)) return false;
    return this.code === undefined || RETRYABLE_ERRORS.has(this.code);
  }
}

/**
 * What a WebSocket that closed means.
 * @param {number} closeCode
 * @param {string} reason
 * @param {import("./protocol.js").ErrorMessage} [fatal] what the server said before
 */
export function closeError(closeCode, reason, fatal) {
  const said = fatal?.message || reason || CLOSE_REASONS.get(closeCode);
  const text = said ?? `connection closed with code ${closeCode}`;
  const taken = fatal?.code === "superseded" ? "another client took the session over: " : "";
  const facts = { code: fatal?.code, retryAfterMs: fatal?.retry_after_ms, closeCode };
  return new StreamError(taken + text, facts);
}
