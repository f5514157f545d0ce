/** Frames a second, latency by stage, and where every frame went. Knows no server. */

import { find, make } from "./dom.js";

/** @typedef {import("./protocol.js").Prediction} Prediction */
/** @typedef {import("./stream.js").StreamMessage} StreamMessage */
/** @typedef {{atMs: number, prediction: Prediction, roundTripMs: number}} Answer */

const SPAN_MS = 5000;
const KEEPS_UP = 0.7; // of the pictures; below it the page says so
const STAGES = /** @type {const} */ (["network", "queue", "decode", "encode", "score"]);

export class Speed {
  /** @type {Answer[]} */ #answers = [];
  /** @type {number[]} */ #takenAtMs = []; // pictures, sent or not
  #counts = { sent: 0, predicted: 0, errors: 0, lost: 0, unsent: 0 };
  #dropped = { busy: 0, rate: 0, stale: 0 };
  #parts = STAGES.map((_, index) => {
    const part = make("span", "stage-part");
    part.style.setProperty("--colour", `var(--stage-${index})`);
    return part;
  });
  #legend = STAGES.map((_, index) => {
    const item = make("li", "");
    const swatch = make("span", "swatch");
    swatch.style.setProperty("--colour", `var(--stage-${index})`);
    item.append(swatch, make("span", ""));
    return item;
  });
  #stages = find("stages", HTMLDivElement);

  constructor() {
    this.#stages.append(...this.#parts);
    find("stage-legend", HTMLUListElement).append(...this.#legend);
  }

  /** Forget everything. */
  clear() {
    this.#answers = [];
    this.#takenAtMs = [];
    this.#counts = { sent: 0, predicted: 0, errors: 0, lost: 0, unsent: 0 };
    this.#dropped = { busy: 0, rate: 0, stale: 0 };
    this.show();
  }

  /** Count a frame that was sent. */
  sent() {
    this.#takenAtMs.push(performance.now());
    this.#counts.sent += 1;
  }

  /** Count a picture that was not sent: the network is behind, or the connection is gone. */
  unsent() {
    this.#takenAtMs.push(performance.now());
    this.#counts.unsent += 1;
  }

  /**
   * Count frames that a break swallowed.
   * @param {number} count
   */
  lost(count) {
    this.#counts.lost += count;
  }

  /**
   * @param {StreamMessage} message
   * @param {number | undefined} sentAtMs of its frame, on the clock of performance.now()
   */
  take(message, sentAtMs) {
    if (message.type === "frame.dropped") this.#dropped[message.reason] += 1;
    if (message.type === "error" && message.seq !== undefined) this.#counts.errors += 1;
    if (message.type !== "prediction") return;
    this.#counts.predicted += 1;
    const atMs = performance.now();
    const roundTripMs = atMs - (sentAtMs ?? atMs);
    this.#answers.push({ atMs, prediction: message, roundTripMs });
  }

  /** Write the numbers of the last seconds. */
  show() {
    const nowMs = performance.now();
    this.#answers = this.#answers.filter(({ atMs }) => nowMs - atMs <= SPAN_MS);
    const { busy, rate, stale } = this.#dropped;
    const latency = median(this.#answers.map(({ roundTripMs }) => roundTripMs));
    write("speed-fps", this.#answers.length ? this.#framesPerSecond(nowMs).toFixed(1) : "–");
    write("speed-latency", latency === undefined ? "–" : `${Math.round(latency)} ms`);
    write("speed-dropped", this.#counts.sent ? String(busy + rate + stale) : "–");
    this.#showStages();
    this.#showCounts();
    this.#showSlow(nowMs);
  }

  /**
   * Say so when the server answers clearly less than the source gives.
   * @param {number} nowMs
   */
  #showSlow(nowMs) {
    this.#takenAtMs = this.#takenAtMs.filter((atMs) => nowMs - atMs <= SPAN_MS);
    const [taken, answered] = [this.#takenAtMs.length, this.#answers.length];
    const isLong = taken > 0 && nowMs - this.#takenAtMs[0] > SPAN_MS / 2;
    const slow = find("slow", HTMLParagraphElement);
    slow.hidden = !(isLong && answered > 0 && answered < KEEPS_UP * taken);
    slow.textContent = `The server answers ${answered} of ${taken} pictures of the last 5 s; the newest goes first.`;
  }

  /** @param {number} nowMs */
  #framesPerSecond(nowMs) {
    const spanMs = Math.max(1000, Math.min(SPAN_MS, nowMs - this.#answers[0].atMs));
    return (1000 * this.#answers.length) / spanMs;
  }

  #showStages() {
    const texts = STAGES.map((stage, index) => {
      const ms = median(this.#answers.map((answer) => stageMs(answer, stage))) ?? 0;
      this.#parts[index].style.setProperty("--share", ms.toFixed(2));
      const text = `${stage} ${ms.toFixed(1)} ms`;
      const label = this.#legend[index].lastElementChild;
      if (label) label.textContent = this.#answers.length ? text : stage;
      return text;
    });
    this.#stages.ariaLabel = this.#answers.length
      ? `Median latency by stage: ${texts.join(", ")}`
      : "Latency by stage: nothing measured";
  }

  #showCounts() {
    const { sent, predicted, errors, lost, unsent } = this.#counts;
    const { busy, rate, stale } = this.#dropped;
    const dropped = busy + rate + stale;
    const reasons = Object.entries(this.#dropped).filter(([, count]) => count);
    const why = reasons.map(([reason, count]) => `${reason} ${count}`).join(", ");
    const parts = [`${sent} frames sent`, `${predicted} predicted`];
    parts.push(`${dropped} dropped${why && ` (${why})`}`);
    if (errors) parts.push(`${errors} refused`);
    if (lost) parts.push(`${lost} lost`);
    if (unsent) parts.push(`${unsent} held back`);
    write("counts", sent || unsent ? parts.join(" · ") : "");
  }
}

/**
 * @param {Answer} answer
 * @param {typeof STAGES[number]} stage
 */
function stageMs({ prediction, roundTripMs }, stage) {
  const timing = prediction.timing_ms;
  return stage === "network" ? Math.max(0, roundTripMs - timing.total) : timing[stage];
}

/** @param {number[]} values */
function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted.length ? sorted[Math.floor(sorted.length / 2)] : undefined;
}

/**
 * @param {string} id
 * @param {string} text
 */
function write(id, text) {
  find(id, HTMLElement).textContent = text;
}
