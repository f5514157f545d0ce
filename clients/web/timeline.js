/** The last minute as curves and event spans, drawn by uPlot. */

import { colourName } from "./colours.js";
import { find, themeColour } from "./dom.js";
import { clock } from "./export.js";
import uPlot from "./vendor/uPlot.esm.js";

/** @typedef {import("./export.js").Span} Span */
/** @typedef {{ms: number, shares: Map<string, number>, background: number}} Moment */

const SHOWN_MS = 60_000;
const GAP_MS = 1500; // longer without a prediction: the curves break
const MOST_CURVES = 8;

export class Timeline {
  /** @type {Moment[]} */ #moments = [];
  /** @type {uPlot | undefined} */ #plot;
  /** @type {Span[]} */ #spans = [];
  #nowMs = 0;
  #curves = "";
  #box = find("timeline", HTMLDivElement);

  constructor() {
    const redraw = () => (this.#curves = "");
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(this.#box);
  }

  /** Forget everything. */
  clear() {
    this.#moments = [];
    this.draw(0, [], []);
  }

  /** @param {Moment} moment */
  push(moment) {
    const last = this.#moments.at(-1);
    if (last && moment.ms - last.ms > GAP_MS) {
      this.#moments.push({ ms: last.ms + 1, shares: new Map(), background: NaN });
    }
    this.#moments.push(moment);
    if (this.#moments[0].ms < moment.ms - 2 * SHOWN_MS) {
      this.#moments = this.#moments.filter(({ ms }) => ms >= moment.ms - SHOWN_MS);
    }
  }

  /**
   * Return the highest probability of a label since a moment.
   * @param {string} label
   * @param {number} sinceMs
   */
  peak(label, sinceMs) {
    const since = this.#moments.filter(({ ms }) => ms >= sinceMs);
    return Math.max(0, ...since.map(({ shares }) => shares.get(label) ?? 0));
  }

  /**
   * Draw up to now.
   * @param {number} nowMs
   * @param {string[]} labels
   * @param {Span[]} spans
   */
  draw(nowMs, labels, spans) {
    this.#spans = spans;
    this.#nowMs = nowMs;
    const shown = this.#moments.filter(({ ms }) => ms >= nowMs - SHOWN_MS - GAP_MS);
    const drawn = mostSeen(labels, shown);
    const curves = JSON.stringify(drawn.map((label) => [label, colourName(label)]));
    if (curves !== this.#curves || !this.#plot) this.#build(drawn, curves);
    const column = (/** @type {(moment: Moment) => number | undefined} */ value) =>
      shown.map((moment) => {
        const found = value(moment);
        return found === undefined || Number.isNaN(found) ? null : found;
      });
    const data = [
      shown.map(({ ms }) => ms / 1000),
      column(({ background }) => background),
      ...drawn.map((label) => column(({ shares }) => shares.get(label))),
    ];
    this.#plot?.batch((/** @type {uPlot} */ plot) => {
      plot.setData(/** @type {uPlot.AlignedData} */ (data), false);
      const endMs = Math.max(nowMs, SHOWN_MS);
      plot.setScale("x", { min: (endMs - SHOWN_MS) / 1000, max: endMs / 1000 });
    });
  }

  #size() {
    return { width: this.#box.clientWidth, height: this.#box.clientHeight };
  }

  /**
   * @param {string[]} labels
   * @param {string} curves
   */
  #build(labels, curves) {
    this.#plot?.destroy();
    this.#curves = curves;
    const axis = { stroke: themeColour("soft"), font: "12px system-ui, sans-serif" };
    const grid = { stroke: themeColour("edge"), width: 1 };
    const curve = (/** @type {string} */ colour) => ({ stroke: colour, points: { show: false } });
    const seconds = (/** @type {uPlot} */ _, /** @type {number[]} */ splits) =>
      splits.map((second) => clock(1000 * second));
    const shares = (/** @type {uPlot} */ _, /** @type {number[]} */ splits) =>
      splits.map((share) => `${Math.round(100 * share)}%`);
    /** @type {uPlot.Options} */
    const options = {
      ...this.#size(),
      legend: { show: false },
      cursor: { show: false },
      padding: [8, 16, 0, 0],
      scales: { x: { time: false }, y: { range: [0, 1] } },
      axes: [
        { ...axis, grid, ticks: { show: false }, values: seconds, size: 24, space: 70 },
        { ...axis, grid, ticks: { show: false }, values: shares, size: 44, splits: [0, 0.5, 1] },
      ],
      series: [
        {},
        { ...curve(themeColour("none")), width: 1.5, dash: [4, 4] },
        ...labels.map((label) => ({ ...curve(themeColour(colourName(label))), width: 2 })),
      ],
      hooks: { drawClear: [(plot) => this.#drawSpans(plot)] },
    };
    this.#plot = new uPlot(options, [[], [], ...labels.map(() => [])], this.#box);
  }

  /**
   * Shade the time of each event, with a firm edge on top.
   * @param {uPlot} plot
   */
  #drawSpans(plot) {
    const { ctx, bbox } = plot;
    const right = plot.valToPos(this.#nowMs / 1000, "x", true);
    for (const span of this.#spans) {
      const from = Math.max(bbox.left, plot.valToPos(span.startMs / 1000, "x", true));
      const end = span.endMs === undefined ? right : plot.valToPos(span.endMs / 1000, "x", true);
      const to = Math.min(right, end);
      if (to <= from) continue;
      ctx.fillStyle = themeColour(colourName(span.label));
      ctx.globalAlpha = 0.14;
      ctx.fillRect(from, bbox.top, to - from, bbox.height);
      ctx.globalAlpha = 1;
      ctx.fillRect(from, bbox.top, to - from, 4 * devicePixelRatio);
    }
  }
}

/**
 * Of many labels, those that were highest lately, in the order given.
 * @param {string[]} labels
 * @param {Moment[]} moments
 */
function mostSeen(labels, moments) {
  if (labels.length <= MOST_CURVES) return labels;
  const peaks = new Map(labels.map((label) => [label, 0]));
  for (const { shares } of moments) {
    for (const label of labels) {
      peaks.set(label, Math.max(peaks.get(label) ?? 0, shares.get(label) ?? 0));
    }
  }
  const ranked = labels.toSorted((a, b) => (peaks.get(b) ?? 0) - (peaks.get(a) ?? 0));
  const best = new Set(ranked.slice(0, MOST_CURVES));
  return labels.filter((label) => best.has(label));
}
