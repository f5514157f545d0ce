/** The list of actions: editing words, and their bars. Knows no server. */

import { freeColour, setColour } from "./colours.js";
import { find, make, percent } from "./dom.js";

/** @typedef {import("./protocol.js").Vocabulary} Vocabulary */
/** @typedef {{element: HTMLLIElement, input: HTMLInputElement, colour: number}} Row */

const TYPING_PAUSE_MS = 700;
const METER_EVERY_MS = 1000; // screen readers need no fifteen values a second

export class Words {
  /** @type {Row[]} */ #rows = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #list = find("rows", HTMLUListElement);
  #backgroundRow = find("background-row", HTMLDivElement);
  #templates = find("templates", HTMLTextAreaElement);
  #background = find("background", HTMLTextAreaElement);
  #note = find("words-note", HTMLParagraphElement);
  #metersAtMs = 0;
  #told = "";

  /**
   * @param {string[]} labels
   * @param {() => void} changed called when the vocabulary has become another usable one
   */
  constructor(labels, changed) {
    this.changed = () => {};
    this.setLabels(labels);
    this.changed = changed;
    find("add", HTMLButtonElement).addEventListener("click", () => this.#addRow("").input.focus());
    for (const area of [this.#templates, this.#background]) {
      area.addEventListener("input", () => this.#later());
      area.addEventListener("change", () => this.#tell());
    }
  }

  /** Labels in the order of the rows; empty and repeated ones left out. */
  labels() {
    const labels = this.#rows.map((row) => clean(row.input.value)).filter(Boolean);
    return [...new Set(labels)];
  }

  /** @returns {Vocabulary} */
  vocabulary() {
    return {
      labels: this.labels(),
      templates: lines(this.#templates),
      background: lines(this.#background),
    };
  }

  /** @param {string[]} labels */
  setLabels(labels) {
    for (const row of this.#rows) row.element.remove();
    this.#rows = [];
    for (const label of labels) this.#addRow(label);
    this.#tell();
  }

  /**
   * Show the server's own templates and background where the person gave none.
   * @param {string[]} templates
   * @param {string[]} background
   */
  setDefaults(templates, background) {
    this.#templates.placeholder = templates.join("\n");
    this.#background.placeholder = background.join("\n");
  }

  /** @param {string} text */
  setNote(text) {
    this.#note.textContent = text;
  }

  /**
   * Show one prediction.
   * @param {Map<string, {probability: number, similarity?: number}>} shares by label
   * @param {number} background
   * @param {number} enter from which probability on an action counts
   */
  show(shares, background, enter) {
    find("actions", HTMLElement).style.setProperty("--enter", String(enter));
    const nowMs = performance.now();
    const meters = nowMs - this.#metersAtMs >= METER_EVERY_MS;
    if (meters) this.#metersAtMs = nowMs;
    for (const { element, input } of this.#rows) {
      const share = shares.get(clean(input.value));
      fill(element, share?.probability, share?.similarity, meters);
      element.classList.toggle("on", (share?.probability ?? 0) >= enter);
    }
    fill(this.#backgroundRow, background, undefined, meters);
  }

  /** Show that there are no numbers. */
  clear() {
    for (const { element } of this.#rows) fill(element, undefined, undefined, true);
    fill(this.#backgroundRow, undefined, undefined, true);
  }

  /**
   * @param {string} label
   * @returns {Row}
   */
  #addRow(label) {
    const colour = freeColour(this.#rows.map((row) => row.colour));
    const row = buildRow(label, colour);
    this.#rows.push(row);
    this.#list.append(row.element);
    if (label) setColour(label, colour);
    row.input.addEventListener("input", () => this.#later());
    row.input.addEventListener("change", () => this.#tell());
    row.input.addEventListener("keydown", (event) => this.#key(event, row));
    row.input.addEventListener("paste", (event) => this.#paste(event, row));
    row.element.querySelector("button")?.addEventListener("click", () => this.#remove(row));
    return row;
  }

  /** @param {Row} row */
  #remove(row) {
    const index = this.#rows.indexOf(row);
    if (this.#rows.length === 1) row.input.value = "";
    else {
      this.#rows.splice(index, 1);
      row.element.remove();
    }
    this.#rows[Math.max(0, index - 1)]?.input.focus();
    this.#tell();
  }

  /**
   * Enter begins a new row, Backspace in an empty one removes it.
   * @param {KeyboardEvent} event
   * @param {Row} row
   */
  #key(event, row) {
    if (event.isComposing) return;
    if (event.key === "Enter") {
      event.preventDefault();
      this.#tell();
      const isLast = row === this.#rows.at(-1);
      if (isLast && row.input.value) this.#addRow("").input.focus();
      else if (!isLast) this.#rows[this.#rows.indexOf(row) + 1].input.focus();
    } else if (event.key === "Backspace" && !row.input.value && this.#rows.length > 1) {
      event.preventDefault();
      this.#remove(row);
    }
  }

  /**
   * Several pasted lines become several rows.
   * @param {ClipboardEvent} event
   * @param {Row} row
   */
  #paste(event, row) {
    const pasted = event.clipboardData?.getData("text").split(/\r?\n/).map(clean).filter(Boolean);
    if (!pasted || pasted.length < 2) return;
    event.preventDefault();
    if (!row.input.value) row.input.value = pasted.shift() ?? "";
    for (const label of pasted) this.#addRow(label);
    this.#tell();
  }

  #later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#tell(), TYPING_PAUSE_MS);
  }

  /** Tell of a changed vocabulary, once, if it can be used. */
  #tell() {
    clearTimeout(this.#timer);
    this.#rows.forEach(nameRow);
    this.#paintColours();
    const problem = this.#problem();
    this.setNote(problem.text);
    const vocabulary = JSON.stringify(this.vocabulary());
    if (problem.stops || vocabulary === this.#told) return;
    this.#told = vocabulary;
    this.changed();
  }

  #paintColours() {
    const seen = new Set();
    for (const { input, colour } of this.#rows) {
      const label = clean(input.value);
      if (label && !seen.has(label)) setColour(label, colour);
      input.setAttribute("aria-invalid", String(seen.has(label)));
      if (label) seen.add(label);
    }
  }

  /** @returns {{text: string, stops: boolean}} */
  #problem() {
    const templates = lines(this.#templates) ?? [];
    const wrong = templates.find((template) => template.split("{}").length !== 2);
    if (wrong) return { text: `“${wrong}” needs exactly one {} for the action.`, stops: true };
    if (!this.labels().length) return { text: "Write at least one action.", stops: true };
    const twice = this.#rows.find((row) => row.input.getAttribute("aria-invalid") === "true");
    if (!twice) return { text: "", stops: false };
    return { text: `“${clean(twice.input.value)}” is there twice; once is enough.`, stops: false };
  }
}

/**
 * @param {string} label
 * @param {number} colour
 * @returns {Row}
 */
function buildRow(label, colour) {
  const element = make("li", "row");
  element.style.setProperty("--colour", `var(--action-${colour})`);
  const swatch = make("span", "swatch");
  swatch.ariaHidden = "true";
  const input = make("input", "");
  Object.assign(input, { value: label, maxLength: 256, placeholder: "an action in plain words" });
  input.setAttribute("autocapitalize", "none");
  const share = make("span", "percent", "–");
  share.ariaHidden = "true";
  const remove = make("button", "remove", "×");
  remove.type = "button";
  const bar = make("div", "bar");
  bar.role = "meter";
  Object.assign(bar, { ariaValueMin: "0", ariaValueMax: "100", ariaValueNow: "0" });
  bar.append(make("div", "fill"));
  element.append(swatch, input, make("span", "similarity"), share, remove, bar);
  return { element, input, colour };
}

/**
 * Name the parts of a row for people who do not see it.
 * @param {Row} row
 * @param {number} index
 */
function nameRow({ element, input }, index) {
  const name = clean(input.value) || "empty";
  input.ariaLabel = `Action ${index + 1}`;
  const [remove, bar] = [element.querySelector("button"), element.querySelector(".bar")];
  if (remove) remove.ariaLabel = `Remove action ${index + 1}: ${name}`;
  if (bar) bar.ariaLabel = name;
}

/**
 * @param {HTMLElement} element
 * @param {number | undefined} share
 * @param {number | undefined} similarity
 * @param {boolean} meters
 */
function fill(element, share, similarity, meters) {
  const parts = (/** @type {string} */ name) => element.querySelector(`.${name}`);
  const [bar, text, raw] = [parts("bar"), parts("percent"), parts("similarity")];
  if (bar instanceof HTMLElement) {
    bar.style.setProperty("--share", String(share ?? 0));
    if (meters) bar.ariaValueNow = String(Math.round(100 * (share ?? 0)));
  }
  if (text) text.textContent = share === undefined ? "–" : percent(share);
  const shown = document.body.classList.contains("similarities") && similarity !== undefined;
  if (raw) raw.textContent = shown ? similarity.toFixed(3) : "";
}

/** @param {string} text */
function clean(text) {
  return text.trim().replace(/\s+/g, " ");
}

/** @param {HTMLTextAreaElement} area */
function lines(area) {
  const found = area.value.split("\n").map((line) => line.trim()).filter(Boolean);
  return found.length ? found : undefined;
}
