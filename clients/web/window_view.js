/** What the model sees: the window's slots as a strip of small pictures. Knows no server. */

import { find, make, percent } from "./dom.js";
import { Grid } from "./grid.js";

/** @typedef {import("./protocol.js").Prediction} Prediction */
/** @typedef {import("./protocol.js").WindowShape} WindowShape */
/** @typedef {{element: HTMLLIElement, shown: HTMLCanvasElement, kept: HTMLCanvasElement}} Slot */

const GROUP_COLOURS = 8;

export class WindowView {
  /** @type {Slot[]} */ #slots = [];
  #list = find("slots", HTMLUListElement);
  #text = find("window-text", HTMLParagraphElement);
  #grid = new Grid(4, 32);
  #neighbours = 8;
  #told = "";

  constructor() {
    this.reset({ fps: 4, past: 24, neighbours: 8 });
  }

  /**
   * Begin anew with an empty window.
   * @param {WindowShape} shape
   */
  reset({ fps, past, neighbours }) {
    this.#grid = new Grid(fps, past + neighbours);
    this.#neighbours = neighbours;
    this.#slots = Array.from({ length: past + neighbours }, buildSlot);
    this.#list.replaceChildren(...this.#slots.map(({ element }) => element));
    const seconds = Math.round((past + neighbours) / fps);
    this.#text.textContent =
      `${fps} frames a second, ${seconds} seconds deep: ` +
      `${past} past slots, then the ${neighbours} newest.`;
    this.#told = "";
    this.#mark();
  }

  /**
   * Show the window that a prediction looked at.
   * @param {Prediction} prediction
   * @param {HTMLCanvasElement | undefined} thumb its frame's picture
   */
  push(prediction, thumb) {
    const { moved, kept } = this.#grid.push(prediction.timestamp_ms);
    this.#moveOn(Math.min(moved, this.#slots.length));
    const newest = this.#slots[this.#slots.length - 1];
    if (thumb) copy(thumb, newest.shown);
    if (thumb && kept) copy(thumb, newest.kept);
    if (moved) this.#mark();
    this.#colourGroups(prediction);
    this.#tell(prediction);
  }

  /** @param {number} count */
  #moveOn(count) {
    if (!count) return;
    const before = this.#slots[this.#slots.length - 1];
    copy(before.kept, before.shown);
    const again = this.#slots.splice(0, count);
    this.#slots.push(...again);
    this.#list.append(...again.map(({ element }) => element));
  }

  #mark() {
    const filled = this.#grid.filled();
    const firstNewest = this.#slots.length - this.#neighbours;
    this.#slots.forEach(({ element }, index) => {
      element.classList.toggle("filled", filled[index] === true);
      element.classList.toggle("gap", filled[index] === false);
      element.classList.toggle("newest-part", index >= firstNewest);
      if (index < firstNewest) element.style.removeProperty("--colour");
    });
  }

  /**
   * Scorer `ovoad` groups the newest frames: one colour a group.
   * @param {Prediction} prediction
   */
  #colourGroups({ grouping }) {
    const newest = this.#slots.slice(-this.#neighbours);
    newest.forEach(({ element }, index) => {
      const weights = grouping?.assignment[index];
      if (!weights?.length) return element.style.removeProperty("--colour");
      const group = weights.indexOf(Math.max(...weights)) % GROUP_COLOURS;
      element.style.setProperty("--colour", `var(--action-${group})`);
    });
  }

  /** @param {Prediction} prediction */
  #tell({ window, grouping }) {
    const parts = [`${window.frames} of ${this.#slots.length} slots filled`];
    if (window.gaps) parts.push(`${window.gaps} ${window.gaps === 1 ? "gap" : "gaps"}`);
    parts.push(`${(window.span_ms / 1000).toFixed(1)} s`);
    if (window.warming_up) parts.push("warming up");
    if (grouping) {
      const groups = new Set(grouping.assignment.map((row) => row.indexOf(Math.max(...row))));
      const foreground = Math.max(...grouping.foreground);
      parts.push(`${groups.size} ${groups.size === 1 ? "group" : "groups"}`);
      parts.push(`foreground up to ${percent(foreground)}`);
    }
    const text = parts.join(" · ");
    if (text !== this.#told) this.#text.textContent = text;
    this.#told = text;
  }
}

/** @returns {Slot} */
function buildSlot() {
  const element = make("li", "slot");
  const [shown, kept] = [make("canvas", ""), make("canvas", "")];
  for (const canvas of [shown, kept]) Object.assign(canvas, { width: 64, height: 48 });
  element.append(shown);
  return { element, shown, kept };
}

/**
 * @param {HTMLCanvasElement} from
 * @param {HTMLCanvasElement} to
 */
function copy(from, to) {
  to.getContext("2d")?.drawImage(from, 0, 0);
}
