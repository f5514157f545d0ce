/** Say how the connection is, in words, honestly. */

import { find } from "./dom.js";

/** @typedef {import("./link.js").LinkState} LinkState */

const ANNOUNCE_EVERY_MS = 3000;

export class Status {
  /** @type {ReturnType<typeof setInterval> | undefined} */ #countdown;
  #announcedAtMs = -Infinity;
  #text = find("status-text", HTMLSpanElement);
  #retry = find("retry", HTMLButtonElement);
  #notice = find("notice", HTMLParagraphElement);

  /** @param {() => void} retryNow */
  constructor(retryNow) {
    this.#retry.addEventListener("click", retryNow);
  }

  /** @param {LinkState | {is: "ready"} | {is: "paused"}} state */
  show(state) {
    clearInterval(this.#countdown);
    document.body.dataset.state = state.is;
    this.#retry.hidden = state.is !== "waiting";
    this.#write(words(state));
    if (state.is === "waiting") this.#countDown(state);
  }

  /**
   * Show a sentence that stays until the next; empty text removes it.
   * @param {string} text
   */
  notice(text) {
    this.#notice.textContent = text;
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

/** @param {LinkState | {is: "ready"} | {is: "paused"}} state */
function words(state) {
  switch (state.is) {
    case "ready":
      return "Ready";
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
