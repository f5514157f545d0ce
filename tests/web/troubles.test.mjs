/** What goes wrong in a browser leaves no camera on and no page dead: the parts that need no page. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { keepKey, storedKey } from "../../clients/web/key.js";
import { Run } from "../../clients/web/run.js";
import { SourceError, openCamera } from "../../clients/web/source.js";

/** Set a name of the browser's for one test. */
function lend(context, name, descriptor) {
  const before = Object.getOwnPropertyDescriptor(globalThis, name);
  Object.defineProperty(globalThis, name, { ...descriptor, configurable: true });
  context.after(() => {
    if (before) Object.defineProperty(globalThis, name, before);
    else delete globalThis[name];
  });
}

/** A camera of one track, lent to one test. */
function lendCamera(context) {
  const track = { stopped: false, stop: () => (track.stopped = true), addEventListener() {} };
  const media = { getTracks: () => [track], getVideoTracks: () => [track] };
  const mediaDevices = { getUserMedia: async () => media };
  lend(context, "navigator", { value: { mediaDevices } });
  return track;
}

test("a camera whose picture does not start is off again, and the reason is told", async (context) => {
  const track = lendCamera(context);
  const play = async () => {
    throw new DOMException("interrupted by a new load", "AbortError");
  };
  const video = { play, removeAttribute() {}, srcObject: null };
  const told = (error) => error instanceof SourceError && error.message.includes("new load");
  await assert.rejects(openCamera(video), told);
  assert.equal(track.stopped, true);
  assert.equal(video.srcObject, null);
});

test("a camera that plays stays on until it is closed", async (context) => {
  const track = lendCamera(context);
  const video = { play: async () => {}, removeAttribute() {}, srcObject: null };
  const source = await openCamera(video);
  assert.equal(track.stopped, false);
  source.close();
  assert.equal(track.stopped, true);
  assert.equal(video.srcObject, null);
});

test("a run that cannot end its session in order still closes its source", async () => {
  const calls = [];
  const broken = {
    pause: () => calls.push("pause"),
    link: { stop: () => Promise.reject(new Error("broken")) },
    source: { close: () => calls.push("close") },
  };
  await assert.rejects(Run.prototype.stop.call(broken), { message: "broken" });
  assert.deepEqual(calls, ["pause", "close"]);
});

test("where storage is forbidden there is no key at first, and a given one lasts", (context) => {
  const get = () => {
    throw new DOMException("access is denied", "SecurityError");
  };
  lend(context, "sessionStorage", { get });
  assert.equal(storedKey(), undefined);
  keepKey("first");
  assert.equal(storedKey(), "first");
  keepKey("second");
  assert.equal(storedKey(), "second");
});

test("where storage is full the newest key holds, not the one stored before", (context) => {
  const setItem = () => {
    throw new DOMException("full", "QuotaExceededError");
  };
  lend(context, "sessionStorage", { value: { getItem: () => "older", setItem } });
  keepKey("newest");
  assert.equal(storedKey(), "newest");
});
