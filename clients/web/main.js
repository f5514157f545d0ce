/** The page: joins its parts, answers its buttons. */

import { colourName } from "./colours.js";
import { find, percent } from "./dom.js";
import { takeDrops } from "./drop.js";
import { Events } from "./events.js";
import { isIdea, keepWords, keptWords, offerIdeas } from "./ideas.js";
import { askForKey, storedKey } from "./key.js";
import { Run } from "./run.js";
import { SourceError, listCameras, openCamera, openVideo } from "./source.js";
import { Speed } from "./speed.js";
import { Status } from "./status.js";
import { recall, remember } from "./store.js";
import { Timeline } from "./timeline.js";
import { WindowView } from "./window_view.js";
import { Words } from "./words.js";

/** @typedef {import("./source.js").Source} Source */
/** @typedef {import("./link.js").LinkState} LinkState */
/** @typedef {import("./protocol.js").SessionCreated} SessionCreated */
/** @typedef {{key_required: boolean, sample: {url: string, labels: string[]} | null}} PageFacts */

const DRAW_EVERY_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 100;
const SPEED_EVERY_MS = 500;
const SAMPLE = "The sample";
const KEY_WHY = "Its owner has one for you: the server’s OVOAD_API_KEY.";
const CAMERA_PLACE = "ovoad.camera";

const video = find("video", HTMLVideoElement);
const hero = find("hero", HTMLDivElement);
const toolbar = find("toolbar", HTMLDivElement);
const sources = find("source", HTMLSelectElement);
const pauseButton = find("pause", HTMLButtonElement);
const fileInput = find("file", HTMLInputElement);
const keyButton = find("key-open", HTMLButtonElement);
const leader = find("leader", HTMLDivElement);
const enter = find("enter", HTMLInputElement);
const exit = find("exit", HTMLInputElement);
const scorer = find("scorer", HTMLSelectElement);
const rate = find("rate", HTMLSelectElement);

/** @type {Run | undefined} */
let run;
let opening = false;
/** @type {PageFacts} */
let facts = { key_required: false, sample: null };
/** @type {(() => Promise<Source>) | undefined} */
let openAgain;

const words = new Words(keptWords(), () => {
  keepWords(words.labels());
  run?.updateWords();
});
const views = {
  words,
  timeline: new Timeline(),
  events: new Events(() => ({
    source: run?.source.name ?? lastAbout.source,
    startedAt: run?.startedAt ?? lastAbout.startedAt,
    model: run?.created?.model ?? lastAbout.model,
    lastMs: run?.lastMs ?? lastAbout.lastMs,
  })),
  window: new WindowView(),
  speed: new Speed(),
  status: new Status(() => run?.link.retryNow()),
  leader: showLeader,
};
/** @type {Omit<import("./export.js").Recording, "spans">} */
let lastAbout = { source: "", startedAt: new Date(), lastMs: 0 };

// ---- running --------------------------------------------------------------------------------

/**
 * Watch a source until it ends.
 * @param {() => Promise<Source>} open
 */
async function start(open) {
  if (opening) return;
  const source = await openWithKey(open);
  if (source) await watch(source, open);
}

/**
 * Open a source, one at a time.
 * @param {() => Promise<Source>} open
 */
async function openWithKey(open) {
  opening = true;
  try {
    return (await haveKey()) ? await openOrExplain(open) : undefined;
  } finally {
    opening = false; // whatever went wrong: the buttons go on working
  }
}

/** Ask for the key before the camera lights up, where the server wants one. */
async function haveKey() {
  return !facts.key_required || storedKey() || askForKey(KEY_WHY);
}

/** @param {() => Promise<Source>} open */
async function openOrExplain(open) {
  await stop();
  views.status.notice("");
  views.status.show({ is: "opening" });
  try {
    return await open();
  } catch (error) {
    views.status.show({ is: "ready" });
    if (!(error instanceof SourceError)) throw error;
    views.status.notice(error.message);
  }
}

/**
 * @param {Source} source
 * @param {() => Promise<Source>} open how to open it again
 */
async function watch(source, open) {
  openAgain = open;
  document.body.classList.remove("fresh");
  for (const view of [views.events, views.timeline, views.speed]) view.clear();
  const current = new Run(source, video, location.origin, page, views);
  run = current;
  showRunning(true);
  await listSources();
  await current.run();
  lastAbout = {
    source: source.name,
    startedAt: current.startedAt,
    model: current.created?.model,
    lastMs: current.lastMs,
  };
  if (run === current) finish(current);
}

/** @param {Run} current */
function finish(current) {
  run = undefined;
  current.source.close();
  showRunning(false);
}

/** End the run, if there is one. */
async function stop() {
  const current = run;
  if (!current) return;
  run = undefined;
  try {
    await current.stop();
  } finally {
    showRunning(false);
  }
}

/** @param {Source} source that ended by itself */
function tellEnd({ kind, name }) {
  if (kind === "camera") return views.status.notice("The camera went away.");
  const count = views.events.spans.length;
  const events = count === 1 ? "1 event" : `${count || "no"} events`;
  views.status.goodNews(`${name} is over: ${events}.`);
}

/** @param {boolean} running */
function showRunning(running) {
  const focused = document.activeElement;
  hero.hidden = running;
  toolbar.hidden = !running;
  if (running && hero.contains(focused)) pauseButton.focus();
  if (!running && toolbar.contains(focused)) find("start-camera", HTMLButtonElement).focus();
  pauseButton.textContent = "Pause";
  if (!running) {
    find("stage", HTMLElement).style.removeProperty("--shape");
    showLeader("", 0);
    words.clear();
    views.speed.show();
    const refused = document.body.dataset.state === "refused";
    if (!refused) views.status.show({ is: "ready" });
  }
}

const page = {
  options: () => ({
    scorer: scorer.value || undefined,
    apiKey: storedKey(),
    events: thresholdsProblem()
      ? undefined
      : { enter: enter.valueAsNumber / 100, exit: exit.valueAsNumber / 100 },
  }),
  enter: () => (thresholdsProblem() ? 0.5 : enter.valueAsNumber / 100),
  fps: () => Number(rate.value),
  /** @param {LinkState} state */
  state(state) {
    views.status.show(state.is === "live" && isPaused() ? { is: "paused" } : state);
    if (state.is === "live") views.status.welcomeBack(run?.created?.resumed ?? false);
    if (state.is === "refused") explainRefusal(state);
    if (state.is === "closed") {
      views.status.notice(`The server ended the session: ${state.why}. Start again when you like.`);
    }
  },
  /** @param {SessionCreated} created */
  created({ model, resumed }) {
    const { encoder, fingerprint } = model;
    const about = `Encoder ${encoder}, scorer ${model.scorer}, fingerprint ${fingerprint.slice(0, 12)}`;
    find("model", HTMLParagraphElement).textContent = resumed ? `${about}, resumed` : about;
    keyButton.hidden = !storedKey();
    loadConfig();
  },
};

/** What is wrong with the thresholds; empty when nothing is. */
function thresholdsProblem() {
  if (!enter.checkValidity() || !exit.checkValidity()) return "Thresholds are whole percents.";
  const crossed = exit.valueAsNumber > enter.valueAsNumber;
  return crossed ? "An action cannot end above the share at which it starts." : "";
}

/** Begin a new session with a changed scorer or thresholds. */
function restartSession() {
  const problem = thresholdsProblem();
  words.setNote(problem);
  if (!problem) run?.link.restart();
}

/** @param {Extract<LinkState, {is: "refused"}>} state */
async function explainRefusal(state) {
  if (state.code !== "unauthorised") {
    return views.status.notice(`The server refused: ${state.why}.`);
  }
  const why = storedKey()
    ? "The server does not know that key. Check it, or ask the server’s owner."
    : KEY_WHY;
  views.status.notice(storedKey() ? why : "This server wants a key.");
  keyButton.hidden = false;
  await askAndStart(why);
}

/** @param {string} why */
async function askAndStart(why) {
  const key = await askForKey(why);
  if (key && openAgain) await start(openAgain);
}

/**
 * @param {string} address
 * @param {RequestInit} [request]
 * @returns {Promise<any>} undefined where the server does not answer
 */
async function fetchJson(address, request) {
  const response = await fetch(address, request).catch(() => undefined);
  return response?.ok ? response.json() : undefined;
}

/** Fill in what the server offers: scorers, its own templates and background. */
async function loadConfig() {
  const key = storedKey();
  const headers = key ? { Authorization: `Bearer ${key}` } : undefined;
  const config = await fetchJson("v1/config", { headers });
  if (!config) return;
  words.setDefaults(config.templates, config.background);
  const chosen = scorer.value;
  const choices = config.scorers.map((/** @type {string} */ name) => new Option(name, name));
  scorer.replaceChildren(new Option("the server’s default", ""), ...choices);
  scorer.value = chosen;
}

/**
 * @param {string} label
 * @param {number} share
 */
function showLeader(label, share) {
  leader.hidden = !label;
  find("leader-label", HTMLSpanElement).textContent = label;
  find("leader-percent", HTMLSpanElement).textContent = percent(share);
  const isAction = words.labels().includes(label);
  leader.style.setProperty("--colour", `var(--${isAction ? colourName(label) : "none"})`);
}

// ---- sources --------------------------------------------------------------------------------

/** Offer the cameras there are, a file, and the sample. */
async function listSources() {
  const options = (await listCameras()).map(({ id, name }) => new Option(name, `camera:${id}`));
  if (run?.source.kind === "file") options.unshift(new Option(run.source.name, "current"));
  options.push(new Option("Open a video file…", "file"));
  if (facts.sample && run?.source.name !== SAMPLE) options.push(new Option("Play the sample", "sample"));
  sources.replaceChildren(...options);
  const current = options.find((option) => option.text === run?.source.name);
  if (current) current.selected = true;
}

/** @param {File | undefined} file */
function startFile(file) {
  if (!file) return;
  const open = () => openVideo(video, URL.createObjectURL(file), { name: file.name, loop: false });
  return start(open);
}

/** The camera chosen last, where it is still there; else the one that looks away from the person. */
function startCamera() {
  return openCamera(video, recall(CAMERA_PLACE));
}

function startSample() {
  const { sample } = facts;
  if (!sample) return;
  if (isIdea(words.labels())) words.setLabels(sample.labels);
  return start(() => openVideo(video, sample.url, { name: SAMPLE, loop: true }));
}

function chooseSource() {
  const [kind, ...id] = sources.value.split(":");
  if (kind === "camera") {
    remember(CAMERA_PLACE, id.join(":"));
    start(startCamera);
  }
  if (kind === "sample") startSample();
  if (kind === "file") {
    listSources(); // the choice is made when a file is
    fileInput.click();
  }
}

/** Whether the person has halted the pictures. */
function isPaused() {
  return pauseButton.textContent !== "Pause";
}

async function togglePause() {
  if (!run) return;
  const pausing = !isPaused();
  pauseButton.textContent = pausing ? "Go on" : "Pause";
  if (pausing) {
    run.pause();
    video.pause();
    views.status.show({ is: "paused" });
  } else {
    await video.play();
    run.resume();
    views.status.show(run.link.stream?.connected ? { is: "live" } : { is: "connecting", attempt: 0 });
  }
}

// ---- buttons --------------------------------------------------------------------------------

/**
 * @param {string} id
 * @param {() => unknown} act
 */
function onClick(id, act) {
  find(id, HTMLButtonElement).addEventListener("click", act);
}

function listen() {
  onClick("start-camera", () => start(startCamera));
  onClick("start-file", () => fileInput.click());
  onClick("start-sample", startSample);
  onClick("stop", stop);
  onClick("pause", togglePause);
  onClick("key-open", () => askAndStart("Give another key; the stream begins anew with it."));
  fileInput.addEventListener("change", () => {
    startFile(fileInput.files?.[0]);
    fileInput.value = "";
  });
  sources.addEventListener("change", chooseSource);
  video.addEventListener("ended", () => {
    if (run) tellEnd(run.source);
    stop();
  });
  video.addEventListener("resize", () => {
    const shape = `${video.videoWidth} / ${video.videoHeight}`;
    if (run || opening) find("stage", HTMLElement).style.setProperty("--shape", shape);
  });
  navigator.mediaDevices?.addEventListener("devicechange", () => run && listSources());
  for (const field of [scorer, enter, exit]) {
    field.addEventListener("change", restartSession);
  }
  rate.addEventListener("change", () => run && (run.capture.fps = page.fps()));
  const similarities = find("show-similarities", HTMLInputElement);
  similarities.addEventListener("change", () => {
    document.body.classList.toggle("similarities", similarities.checked);
  });
  addEventListener("pagehide", stop);
  takeDrops(find("stage", HTMLElement), startFile);
}

async function prepare() {
  find("server-name", HTMLSpanElement).textContent = location.host;
  facts = (await fetchJson("page.json")) ?? facts;
  find("start-sample", HTMLButtonElement).hidden = !facts.sample;
  keyButton.hidden = !facts.key_required;
  offerIdeas(words.labels(), (labels) => words.setLabels(labels));
  document.body.dataset.prepared = "yes";
}

listen();
await prepare();
setInterval(() => {
  if (run) views.timeline.draw(run.source.clockMs(), words.labels(), views.events.spans);
}, DRAW_EVERY_MS);
setInterval(() => run && views.speed.show(), SPEED_EVERY_MS);
