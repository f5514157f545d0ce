/** Events as JSON, CSV and subtitles. Knows no page. */

/**
 * @typedef {object} Span one action from start to end, in ms since the stream began
 * @property {string} label
 * @property {number} startMs
 * @property {number} [endMs] absent while it goes on
 * @property {number} probability the highest seen
 */

/**
 * @typedef {object} Recording
 * @property {string} source camera's or file's name
 * @property {Date} startedAt
 * @property {import("./protocol.js").ModelInfo} [model]
 * @property {number} lastMs the newest frame's time
 * @property {Span[]} spans
 */

/** @param {Recording} recording */
export function toJson(recording) {
  const events = recording.spans.map((span) => ({
    label: span.label,
    start_ms: span.startMs,
    end_ms: span.endMs ?? null,
    probability: round(span.probability),
  }));
  const about = {
    source: recording.source,
    started_at: recording.startedAt.toISOString(),
    model: recording.model,
  };
  return `${JSON.stringify({ ...about, events }, null, 2)}\n`;
}

/** @param {Recording} recording */
export function toCsv(recording) {
  const rows = recording.spans.map((span) =>
    [cell(span.label), span.startMs, span.endMs ?? "", round(span.probability)].join(","),
  );
  return `${["label,start_ms,end_ms,probability", ...rows].join("\r\n")}\r\n`;
}

/**
 * Quote where needed, and keep spreadsheets from reading words as formulas.
 * @param {string} text
 */
function cell(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** @param {Recording} recording */
export function toSrt(recording) {
  const spans = recording.spans.toSorted((a, b) => a.startMs - b.startMs);
  const blocks = spans.map((span, index) => {
    const end = Math.max(span.endMs ?? recording.lastMs, span.startMs + 1);
    const text = span.label.replace(/\s+/g, " ").replaceAll("-->", "→");
    return `${index + 1}\n${srtTime(span.startMs)} --> ${srtTime(end)}\n${text}\n`;
  });
  return blocks.join("\n");
}

/** @param {number} ms */
function srtTime(ms) {
  const parts = [ms / 3_600_000, (ms / 60_000) % 60, (ms / 1000) % 60];
  const clock = parts.map((part) => String(Math.floor(part)).padStart(2, "0")).join(":");
  return `${clock},${String(Math.floor(ms % 1000)).padStart(3, "0")}`;
}

/** @param {number} probability */
function round(probability) {
  return Number(probability.toFixed(4));
}

/**
 * Minutes and seconds, for people.
 * @param {number} ms
 * @param {{tenths?: boolean}} [options]
 */
export function clock(ms, { tenths = false } = {}) {
  const units = Math.floor(Math.abs(ms) / (tenths ? 100 : 1000));
  const seconds = tenths ? Math.floor(units / 10) : units;
  const text = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  return (ms < 0 ? "−" : "") + (tenths ? `${text}.${units % 10}` : text);
}
