/** What the model sees: the window's slots as a strip of small pictures. Knows no server. */

import { find, make, percent } from "./dom.js";
import { Grid } from "./grid.js";

/** @typedef {import("./protocol.js").Prediction} Prediction */
/** @typedef {import("./protocol.js").WindowShape} WindowShape */
/** @typedef {{element: HTMLLIElement, shown: HTMLCanvasElement, kept: HTMLCanvasElement}} Slot */

const GROUP_COLOURS = 8;

export class WindowView {
  /** @type {Slot[]} */ #slots = [];
  #past = find("past", HTMLUListElement);
  #newest = find("newest", HTMLUListElement);
  #text = find("window-text", HTMLParagraphElement);
  #groups = find("groups-text", HTMLParagraphElement);
  #scorer = "";
  #grid = new Grid(4, 32);
  #neighbours = 8;
  #told = "";

  constructor() {
    this.reset({ fps: 4, past: 24, neighbours: 8 });
  }

  /**
   * Begin anew with an empty window.
   * @param {WindowShape} shape
   * @param {string} [scorer]
   */
  reset({ fps, past, neighbours }, scorer = "") {
    this.#scorer = scorer;
    this.#grid = new Grid(fps, past + neighbours);
    this.#neighbours = neighbours;
    this.#slots = Array.from({ length: past + neighbours }, buildSlot);
    const seconds = (/** @type {number} */ slots) => `${slots} slots, ${slots / fps} s`;
    find("past-title", HTMLElement).textContent = `Past: ${seconds(past)}`;
    find("newest-title", HTMLElement).textContent = `Newest: ${seconds(neighbours)}`;
    this.#text.textContent = "Empty until the first frame.";
    this.#groups.textContent = "";
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
  }

  #mark() {
    const filled = this.#grid.filled();
    const firstNewest = this.#slots.length - this.#neighbours;
    const elements = this.#slots.map(({ element }) => element);
    this.#past.replaceChildren(...elements.slice(0, firstNewest));
    this.#newest.replaceChildren(...elements.slice(firstNewest));
    this.#slots.forEach(({ element }, index) => {
      element.classList.toggle("filled", filled[index] === true);
      element.classList.toggle("gap", filled[index] === false);
      element.classList.toggle("newest", index === filled.length - 1);
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
    this.#tellGroups(grouping);
    const text = parts.join(" · ");
    if (text !== this.#told) this.#text.textContent = text;
    this.#told = text;
  }

  /** @param {Prediction["grouping"]} grouping */
  #tellGroups(grouping) {
    let text = `The scorer ${this.#scorer} makes no groups; “ovoad” colours them here.`;
    if (grouping) {
      const groups = new Set(grouping.assignment.map((row) => row.indexOf(Math.max(...row))));
      const foreground = percent(Math.max(...grouping.foreground));
      const count = groups.size === 1 ? "1 group" : `${groups.size} groups`;
      text = `${count} among the newest frames, by colour · foreground up to ${foreground}`;
    }
    if (text !== this.#groups.textContent) this.#groups.textContent = text;
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
