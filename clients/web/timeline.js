/** The last minute as curves, with a lane for each label's events, drawn by uPlot. */

import { colourName } from "./colours.js";
import { find, themeColour } from "./dom.js";
import { clock } from "./export.js";
import uPlot from "./vendor/uPlot.esm.js";

/** @typedef {import("./export.js").Span} Span */
/** @typedef {{ms: number, shares: Map<string, number>, background: number}} Moment */

const SHOWN_MS = 60_000;
const LEAST_SHOWN_MS = 15_000; // at the start: the curves fill the width sooner
const GAP_MS = 1500; // longer without a prediction: the curves break
const MOST_CURVES = 8;
const MOST_LANES = 3;
const LANE = 19; // pixels of the page
const FONT = 'system-ui, "DejaVu Sans", sans-serif';

export class Timeline {
  /** @type {Moment[]} */ #moments = [];
  /** @type {uPlot | undefined} */ #plot;
  /** @type {Span[]} */ #spans = [];
  /** @type {string[]} */ #labels = [];
  /** @type {string[]} */ #lanes = [];
  #nowMs = 0;
  #curves = "";
  #box = find("timeline", HTMLDivElement);

  constructor() {
    const redraw = () => {
      this.#curves = "";
      if (this.#plot) this.draw(this.#nowMs, this.#labels, this.#spans);
    };
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
    const startMs = Math.max(0, nowMs - SHOWN_MS);
    this.#spans = spans.filter(({ endMs = nowMs }) => endMs >= startMs);
    this.#nowMs = nowMs;
    this.#labels = labels;
    this.#lanes = latestLabels(this.#spans);
    const shown = this.#moments.filter(({ ms }) => ms >= nowMs - SHOWN_MS - GAP_MS);
    const drawn = mostSeen(labels, shown);
    const coloured = drawn.map((label) => [label, colourName(label)]);
    const curves = JSON.stringify([coloured, this.#lanes.length]);
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
      const endMs = Math.max(nowMs, LEAST_SHOWN_MS);
      plot.setScale("x", { min: startMs / 1000, max: endMs / 1000 });
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
    const axis = { stroke: themeColour("soft"), font: `12px ${FONT}` };
    const grid = { stroke: themeColour("edge"), width: 1 };
    const ticks = { show: false };
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
      padding: [8 + LANE * this.#lanes.length, 16, 0, 0],
      scales: { x: { time: false }, y: { range: [0, 1] } },
      axes: [
        { ...axis, grid, ticks, values: seconds, size: 24, space: 70, incrs: [1, 2, 5, 10, 20] },
        { ...axis, grid, ticks, values: shares, size: 44, splits: [0, 0.5, 1] },
      ],
      series: [
        {},
        { ...curve(themeColour("none")), width: 1.5, dash: [4, 4] },
        ...labels.map((label) => ({ ...curve(themeColour(colourName(label))), width: 2 })),
      ],
      hooks: { drawClear: [(plot) => this.#drawBehind(plot)] },
    };
    this.#plot = new uPlot(options, [[], [], ...labels.map(() => [])], this.#box);
  }

  /** @param {uPlot} plot */
  #drawBehind(plot) {
    plot.ctx.save(); // uPlot counts on its own font and colours
    this.#drawSilences(plot);
    this.#drawSpans(plot);
    plot.ctx.restore();
  }

  /**
   * Draw each event in its label's lane above the curves, and shade its time below.
   * @param {uPlot} plot
   */
  #drawSpans(plot) {
    const { ctx, bbox } = plot;
    const scale = devicePixelRatio;
    const taken = this.#lanes.map(() => 0); // how far each lane is drawn
    for (const span of this.#spans) {
      const lane = this.#lanes.indexOf(span.label);
      const { from, width } = this.#place(plot, span.startMs, span.endMs ?? this.#nowMs);
      if (lane < 0 || width <= 0) continue;
      const top = bbox.top - (this.#lanes.length - lane) * LANE * scale;
      const colour = themeColour(colourName(span.label));
      ctx.fillStyle = colour;
      ctx.globalAlpha = 0.1;
      ctx.fillRect(from, bbox.top, width, bbox.height);
      ctx.globalAlpha = 1;
      ctx.beginPath();
      ctx.roundRect(from, top, width, (LANE - 3) * scale, 4 * scale);
      ctx.fill();
      const newest = this.#spans.findLast(({ label }) => label === span.label) === span;
      const beside = newest ? { colour, leftEnd: taken[lane] } : undefined;
      write(ctx, span.label, themeColour("accent-ink"), { from, width, top }, beside);
      taken[lane] = from + width;
    }
  }

  /**
   * Show the times without an answer as what they are.
   * @param {uPlot} plot
   */
  #drawSilences(plot) {
    const { ctx, bbox } = plot;
    const last = this.#moments.at(-1);
    const silences = this.#moments.flatMap(({ ms, background }, index) =>
      Number.isNaN(background) ? [{ ms, endMs: this.#moments[index + 1].ms }] : [],
    );
    if (last && this.#nowMs - last.ms > GAP_MS) silences.push({ ms: last.ms, endMs: this.#nowMs });
    for (const { ms, endMs } of silences) {
      const { from, width } = this.#place(plot, ms, endMs);
      if (width <= 0) continue;
      ctx.fillStyle = themeColour("track");
      ctx.fillRect(from, bbox.top, width, bbox.height);
      write(ctx, "no answers", themeColour("soft"), { from, width, top: bbox.top + bbox.height / 2 });
    }
  }

  /**
   * Where a stretch of time lies on the canvas.
   * @param {uPlot} plot
   * @param {number} startMs
   * @param {number} endMs
   */
  #place(plot, startMs, endMs) {
    const from = Math.max(plot.bbox.left, plot.valToPos(startMs / 1000, "x", true));
    return { from, width: plot.valToPos(endMs / 1000, "x", true) - from };
  }
}

/**
 * Write a word into a box of one lane's height, where it fits; else beside it, if so wished.
 * @param {CanvasRenderingContext2D} ctx
 * @param {string} text
 * @param {string} colour
 * @param {{from: number, width: number, top: number}} box
 * @param {{colour: string, leftEnd: number}} [beside] the colour there, and where the last box ends
 */
function write(ctx, text, colour, { from, width, top }, beside) {
  const scale = devicePixelRatio;
  ctx.font = `600 ${11 * scale}px ${FONT}`;
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  const needed = ctx.measureText(text).width + 12 * scale;
  const put = (/** @type {string} */ ink, /** @type {number} */ left) => {
    ctx.fillStyle = ink;
    ctx.fillText(text, left + 6 * scale, top + ((LANE - 3) / 2 + 0.5) * scale);
  };
  if (needed <= width) return put(colour, from);
  if (!beside) return;
  const right = from + width;
  if (right + needed <= ctx.canvas.width) return put(beside.colour, right);
  if (from - needed >= beside.leftEnd) put(beside.colour, from - needed);
}

/**
 * The labels of the latest events, the first to appear on top.
 * @param {Span[]} spans oldest first
 */
function latestLabels(spans) {
  const latest = new Set(spans.toReversed().map(({ label }) => label));
  const shown = [...latest].slice(0, MOST_LANES);
  return [...new Set(spans.map(({ label }) => label))].filter((label) => shown.includes(label));
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
