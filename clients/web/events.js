/** The list of events with their pictures, and saving it. Knows no server. */

import { colourName } from "./colours.js";
import { find, make, percent } from "./dom.js";
import { clock, toCsv, toJson, toSrt } from "./export.js";

/** @typedef {import("./export.js").Span} Span */
/** @typedef {import("./protocol.js").ActionEvent} ActionEvent */
/** @typedef {{span: Span, element: HTMLLIElement, picture?: string}} Entry */

const MOST_SHOWN = 200;
const FORMATS = new Map([
  ["json", { write: toJson, type: "application/json" }],
  ["csv", { write: toCsv, type: "text/csv" }],
  ["srt", { write: toSrt, type: "application/x-subrip" }],
]);

export class Events {
  /** @type {Entry[]} */ #entries = [];
  #list = find("events", HTMLOListElement);
  #empty = find("events-empty", HTMLParagraphElement);
  #export = find("export", HTMLDivElement);

  /** @param {() => Omit<import("./export.js").Recording, "spans">} about what is being watched */
  constructor(about) {
    this.about = about;
    this.#export.addEventListener("click", ({ target }) => {
      if (target instanceof HTMLButtonElement) this.#save(target.dataset.format ?? "json");
    });
  }

  /** Spans, oldest first. */
  get spans() {
    return this.#entries.map(({ span }) => span);
  }

  /** Forget all events. */
  clear() {
    for (const entry of this.#entries) discard(entry);
    this.#entries = [];
    this.#showWhetherEmpty();
  }

  /**
   * Take an event of the server.
   * @param {ActionEvent} event
   * @param {Blob} [picture] the frame at its start
   */
  take(event, picture) {
    const open = this.#entries.find(({ span }) => span.label === event.label && !isOver(span));
    if (event.kind === "end") {
      if (open) this.#end(open, event.timestamp_ms);
      return;
    }
    if (open) this.#end(open, event.start_ms ?? event.timestamp_ms);
    const { label, probability } = event;
    this.#add({ label, startMs: event.start_ms ?? event.timestamp_ms, probability }, picture);
  }

  /**
   * Raise the peaks of what is going on.
   * @param {Map<string, {probability: number}>} shares
   */
  follow(shares) {
    for (const entry of this.#entries) {
      if (isOver(entry.span)) continue;
      const probability = shares.get(entry.span.label)?.probability ?? 0;
      if (probability > entry.span.probability) {
        entry.span.probability = probability;
        showPeak(entry);
      }
    }
  }

  /**
   * End what is going on, where a session broke and no end can come any more.
   * @param {number} ms
   */
  endAll(ms) {
    for (const entry of this.#entries) {
      if (!isOver(entry.span)) this.#end(entry, Math.max(ms, entry.span.startMs));
    }
  }

  /**
   * @param {Span} span
   * @param {Blob} [picture]
   */
  #add(span, picture) {
    const element = make("li", "event open");
    element.style.setProperty("--colour", `var(--${colourName(span.label)})`);
    const url = picture && URL.createObjectURL(picture);
    const image = url ? make("img", "") : make("span", "no-picture");
    if (image instanceof HTMLImageElement) {
      Object.assign(image, { src: url, alt: "", width: 76, height: 50 });
    }
    element.append(image, make("strong", "", span.label), make("span", "when"), make("span", "peak"));
    const entry = { span, element, picture: url };
    this.#entries.push(entry);
    this.#list.prepend(element);
    showTime(entry);
    showPeak(entry);
    if (this.#entries.length > MOST_SHOWN) discard(/** @type {Entry} */ (this.#entries.shift()));
    this.#showWhetherEmpty();
  }

  /**
   * @param {Entry} entry
   * @param {number} ms
   */
  #end(entry, ms) {
    entry.span.endMs = ms;
    entry.element.classList.remove("open");
    showTime(entry);
  }

  #showWhetherEmpty() {
    const empty = this.#entries.length === 0;
    this.#empty.hidden = !empty;
    for (const button of this.#export.querySelectorAll("button")) button.disabled = empty;
  }

  /** @param {string} format */
  #save(format) {
    const { write, type } = FORMATS.get(format) ?? { write: toJson, type: "application/json" };
    const text = write({ ...this.about(), spans: this.spans });
    const link = make("a", "");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = `ovoad-events.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }
}

/** @param {Span} span */
function isOver(span) {
  return span.endMs !== undefined;
}

/** @param {Entry} entry */
function showTime({ span, element }) {
  const when = element.querySelector(".when");
  if (!when) return;
  const start = clock(span.startMs, { tenths: true });
  when.textContent =
    span.endMs === undefined
      ? `since ${start}`
      : `${start} to ${clock(span.endMs, { tenths: true })}`;
}

/** @param {Entry} entry */
function showPeak({ span, element }) {
  const peak = element.querySelector(".peak");
  if (peak) peak.textContent = percent(span.probability);
}

/** @param {Entry} entry */
function discard({ element, picture }) {
  element.remove();
  if (picture) URL.revokeObjectURL(picture);
}
