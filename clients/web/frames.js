/** The frames sent lately: for thumbnails, and for the time an answer took. */

/** @typedef {import("./capture.js").Picture} Picture */
/** @typedef {Picture & {seq: number, sentAtMs: number}} SentFrame */

const KEPT = 240; // fewer than capture's thumbs, so that none is drawn over while kept

export class Frames {
  /** @type {SentFrame[]} */ #frames = [];

  /** Forget all; a new session counts its frames from 0 again. */
  clear() {
    this.#frames = [];
  }

  /**
   * @param {number} seq
   * @param {Picture} picture
   */
  add(seq, picture) {
    this.#frames.push({ ...picture, seq, sentAtMs: performance.now() });
    if (this.#frames.length > KEPT) this.#frames.shift();
  }

  /** @param {number} seq */
  withSeq(seq) {
    return this.#frames.findLast((frame) => frame.seq === seq);
  }

  /** @param {number} ms */
  nearest(ms) {
    const off = (/** @type {SentFrame} */ frame) => Math.abs(frame.timestampMs - ms);
    return this.#frames.reduce(
      (/** @type {SentFrame | undefined} */ best, frame) =>
        !best || off(frame) < off(best) ? frame : best,
      undefined,
    );
  }
}
