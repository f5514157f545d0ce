/** Say how the connection is, in words, honestly. */

import { find } from "./dom.js";

/** @typedef {import("./link.js").LinkState} LinkState */

/** @typedef {LinkState | {is: "ready"} | {is: "opening"} | {is: "paused"}} State */

const ANNOUNCE_EVERY_MS = 3000;
const SLOW_AFTER_MS = 3000; // whoever waits longer wants to know for what
const GOOD_NEWS_MS = 12_000;

export class Status {
  /** @type {ReturnType<typeof setInterval> | undefined} */ #countdown;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #slow;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #stale;
  /** @type {number | undefined} */ #brokenAtMs;
  #announcedAtMs = -Infinity;
  #text = find("status-text", HTMLSpanElement);
  #retry = find("retry", HTMLButtonElement);
  #notice = find("notice", HTMLParagraphElement);
  #goodNews = find("good-news", HTMLParagraphElement);

  /** @param {() => void} retryNow */
  constructor(retryNow) {
    this.#retry.addEventListener("click", retryNow);
  }

  /** @param {State} state */
  show(state) {
    clearInterval(this.#countdown);
    clearTimeout(this.#slow);
    document.body.dataset.state = state.is;
    this.#retry.hidden = state.is !== "waiting";
    this.#write(words(state));
    if (state.is === "waiting") this.#countDown(state);
    if (state.is === "waiting" && state.wasLive) this.#brokenAtMs ??= performance.now();
    if (state.is === "ready") this.#brokenAtMs = undefined;
    const slow = SLOW.get(state.is);
    if (slow) this.#slow = setTimeout(() => this.#write(slow), SLOW_AFTER_MS);
  }

  /**
   * Say what a break has cost, once it is over.
   * @param {boolean} resumed whether the server still knew the session
   */
  welcomeBack(resumed) {
    this.notice("");
    if (this.#brokenAtMs === undefined) return;
    const seconds = Math.max(1, Math.round((performance.now() - this.#brokenAtMs) / 1000));
    this.#brokenAtMs = undefined;
    const cost = resumed
      ? "The server kept what the model had seen."
      : "The server began anew: the model has to see a few seconds again.";
    this.goodNews(`Connected again after ${seconds} s. ${cost}`);
  }

  /**
   * Show a sentence for a while.
   * @param {string} text
   */
  goodNews(text) {
    clearTimeout(this.#stale);
    this.#goodNews.textContent = text;
    this.#goodNews.hidden = !text;
    if (text) this.#stale = setTimeout(() => this.goodNews(""), GOOD_NEWS_MS);
  }

  /**
   * Show a sentence that stays until the next; empty text removes it.
   * @param {string} text
   */
  notice(text) {
    if (text) this.goodNews("");
    if (this.#notice.textContent !== text) this.#notice.textContent = text;
    this.#notice.hidden = !text;
  }

  /**
   * Tell people who listen; sparingly.
   * @param {string} text
   */
  announce(text) {
    const nowMs = performance.now();
    if (nowMs - this.#announcedAtMs < ANNOUNCE_EVERY_MS) return;
    this.#announcedAtMs = nowMs;
    find("announcer", HTMLParagraphElement).textContent = text;
  }

  /** @param {Extract<LinkState, {is: "waiting"}>} state */
  #countDown(state) {
    const what = state.wasLive ? "Connection lost" : "No connection";
    const why = state.why === "connection broken" ? "" : `: ${state.why}`;
    this.notice(`${what}${why}. Pictures are not sent meanwhile.`);
    const tick = () => {
      const seconds = Math.max(0, Math.ceil((state.untilMs - performance.now()) / 1000));
      this.#text.ariaHidden = "true"; // the notice has told it; not every second again
      this.#text.textContent = `Trying again in ${seconds} s (attempt ${state.attempt})`;
    };
    tick();
    this.#countdown = setInterval(tick, 250);
  }

  /** @param {string} text */
  #write(text) {
    this.#text.ariaHidden = null;
    if (this.#text.textContent !== text) this.#text.textContent = text;
  }
}

/** @type {Map<State["is"], string>} */
const SLOW = new Map([
  ["opening", "Waiting for the picture: allow the camera if the browser asks"],
  ["connecting", "Still connecting: the server may be busy or starting"],
]);

/** @param {State} state */
function words(state) {
  switch (state.is) {
    case "ready":
      return "Ready";
    case "opening":
      return "Opening";
    case "paused":
      return "Paused";
    case "live":
      return "Live";
    case "connecting":
      return state.attempt ? `Connecting again (attempt ${state.attempt})` : "Connecting";
    case "waiting":
      return "Trying again";
    case "refused":
      return "Not connected";
    case "closed":
      return "Ended";
  }
}
