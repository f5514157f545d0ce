/**
 * Which frames the model's window holds: the server's 4 fps grid, followed from the timestamps of
 * predicted frames. Knows no drawing.
 *
 * The grid starts at the first frame; a frame belongs to the nearest cell; a cell keeps the frame
 * nearest to its grid time, the newest cell shows the newest frame.
 */

/** @typedef {{cell: number, timestampMs: number}} Kept */

export class Grid {
  /** @type {Map<number, Kept>} */ #kept = new Map();
  /** @type {number | undefined} */ #firstMs;
  #current = 0;

  /**
   * @param {number} fps
   * @param {number} slots
   */
  constructor(fps, slots) {
    this.stepMs = 1000 / fps;
    this.slots = slots;
  }

  /** Forget all frames. */
  clear() {
    this.#kept.clear();
    this.#firstMs = undefined;
    this.#current = 0;
  }

  /**
   * Take a predicted frame; tells how many cells the grid moved on and whether the frame is the one
   * that its cell keeps.
   * @param {number} timestampMs
   * @returns {{moved: number, kept: boolean}}
   */
  push(timestampMs) {
    const isFirst = this.#firstMs === undefined;
    this.#firstMs ??= timestampMs;
    const cell = Math.ceil((timestampMs - this.#firstMs) / this.stepMs - 0.5);
    const moved = isFirst ? this.slots : Math.max(0, cell - this.#current);
    this.#current += isFirst ? 0 : moved;
    const gridMs = this.#firstMs + cell * this.stepMs;
    const before = this.#kept.get(cell % this.slots);
    const kept =
      before?.cell !== cell ||
      Math.abs(timestampMs - gridMs) < Math.abs(before.timestampMs - gridMs);
    if (kept) this.#kept.set(cell % this.slots, { cell, timestampMs });
    return { moved, kept };
  }

  /**
   * Which slots are filled, oldest first; undefined where the stream had not begun yet.
   * @returns {(boolean | undefined)[]}
   */
  filled() {
    return Array.from({ length: this.slots }, (_, index) => {
      const cell = this.#current - this.slots + 1 + index;
      if (this.#firstMs === undefined || cell < 0) return undefined;
      return this.#kept.get(cell % this.slots)?.cell === cell;
    });
  }
}
