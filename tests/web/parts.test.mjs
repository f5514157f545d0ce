/** Parts of the page that need no browser: export, the window's grid, back-off, colours. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { freeColour } from "../../clients/web/colours.js";
import { clock, toCsv, toJson, toSrt } from "../../clients/web/export.js";
import { Frames } from "../../clients/web/frames.js";
import { Grid } from "../../clients/web/grid.js";
import { delayMs } from "../../clients/web/reconnecting.js";

const recording = {
  source: "door camera",
  startedAt: new Date("2026-01-02T03:04:05Z"),
  model: { encoder: "embedded", scorer: "average", fingerprint: "f00d" },
  lastMs: 3_661_500,
  spans: [
    { label: '=opening, "the door"', startMs: 1250, endMs: 4000, probability: 0.987654 },
    { label: "waving -->", startMs: 3_600_000, probability: 0.5 },
  ],
};

test("JSON holds the events, what goes on has no end", () => {
  const { events, started_at, source } = JSON.parse(toJson(recording));
  assert.equal(started_at, "2026-01-02T03:04:05.000Z");
  assert.equal(source, "door camera");
  assert.deepEqual(events[0], {
    label: '=opening, "the door"',
    start_ms: 1250,
    end_ms: 4000,
    probability: 0.9877,
  });
  assert.equal(events[1].end_ms, null);
});

test("CSV quotes, and no cell is a formula", () => {
  assert.equal(
    toCsv(recording),
    "label,start_ms,end_ms,probability\r\n" +
      '"\'=opening, ""the door""",1250,4000,0.9877\r\n' +
      "waving -->,3600000,,0.5\r\n",
  );
});

test("SRT numbers the events in order of time, and ends what goes on with the stream", () => {
  assert.equal(
    toSrt(recording),
    '1\n00:00:01,250 --> 00:00:04,000\n=opening, "the door"\n\n' +
      "2\n01:00:00,000 --> 01:01:01,500\nwaving →\n",
  );
});

test("clocks read as people say them", () => {
  assert.equal(clock(0), "0:00");
  assert.equal(clock(61_900), "1:01");
  assert.equal(clock(61_960, { tenths: true }), "1:01.9");
});

test("the grid fills, keeps gaps, and moves on", () => {
  const grid = new Grid(4, 32);
  assert.deepEqual(grid.push(1000), { moved: 32, kept: true });
  assert.deepEqual(grid.push(1100), { moved: 0, kept: false });
  assert.deepEqual(grid.push(1126), { moved: 1, kept: true });
  assert.deepEqual(grid.push(1240), { moved: 0, kept: true });
  assert.deepEqual(grid.push(2000), { moved: 3, kept: true });
  assert.deepEqual(grid.filled().slice(-6), [undefined, true, true, false, false, true]);
  grid.push(1000 + 100 * 250);
  assert.equal(grid.filled().filter(Boolean).length, 1);
  grid.clear();
  assert.ok(grid.filled().every((slot) => slot === undefined));
});

test("back-off doubles to a limit, is spread, and heeds the server", () => {
  assert.equal(delayMs(1, 0, 0.5), 250);
  assert.equal(delayMs(4, 0, 0.5), 2000);
  assert.equal(delayMs(40, 0, 0.5), 8000);
  assert.equal(delayMs(1, 0, 0), 187.5);
  assert.equal(delayMs(1, 9000, 0), 9187.5);
});

test("a new row takes the colour that is used least", () => {
  assert.equal(freeColour([]), 0);
  assert.equal(freeColour([0, 1, 3]), 2);
  assert.equal(freeColour([0, 1, 2, 3, 4, 5, 6, 7, 0]), 1);
});

test("frames are found by seq and by time, and forgotten when old", () => {
  const frames = new Frames();
  for (let seq = 0; seq < 300; seq += 1) frames.add(seq, { timestampMs: seq * 100 });
  assert.equal(frames.withSeq(299)?.timestampMs, 29_900);
  assert.equal(frames.withSeq(0), undefined);
  assert.equal(frames.nearest(20_040)?.seq, 200);
  frames.clear();
  assert.equal(frames.nearest(0), undefined);
});
