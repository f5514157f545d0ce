/** One run: a source, its pictures, the session that scores them, and the views that show it. */

import { Capture } from "./capture.js";
import { Frames } from "./frames.js";
import { Link } from "./link.js";

/** @typedef {import("./source.js").Source} Source */
/** @typedef {import("./link.js").LinkState} LinkState */
/** @typedef {import("./stream.js").StreamMessage} StreamMessage */
/** @typedef {import("./protocol.js").SessionCreated} SessionCreated */
/** @typedef {import("./protocol.js").Prediction} Prediction */
/** @typedef {import("./ovoad.js").Options} Options */

/**
 * @typedef {object} Views
 * @property {import("./words.js").Words} words
 * @property {import("./timeline.js").Timeline} timeline
 * @property {import("./events.js").Events} events
 * @property {import("./window_view.js").WindowView} window
 * @property {import("./speed.js").Speed} speed
 * @property {import("./status.js").Status} status
 * @property {(label: string, share: number) => void} leader
 */

/** @typedef {Map<string, {probability: number, similarity?: number}>} Shares */

const MOST_BUFFERED_BYTES = 256 * 1024; // of a slow network: newer pictures are worth more
const MOST_UNANSWERED = 2; // one at work, one waiting: a third would take the second's place
const PING_EVERY_MS = 20_000;

export class Run {
  startedAt = new Date();
  lastMs = 0;
  /** @type {SessionCreated | undefined} */ created;
  /** @type {Map<number, string[]>} */ #labels = new Map(); // by vocabulary version
  #frames = new Frames();
  #sentWords = "";
  #updating = false;
  /** @type {ReturnType<typeof setInterval>} */ #pinging;

  /**
   * @param {Source} source
   * @param {HTMLVideoElement} video
   * @param {string} url
   * @param {{options: () => Omit<Options, "labels">, enter: () => number, fps: () => number,
   *   state: (state: LinkState) => void, created: (created: SessionCreated) => void}} page
   * @param {Views} views
   */
  constructor(source, video, url, page, views) {
    this.source = source;
    this.page = page;
    this.views = views;
    this.capture = new Capture(video, (picture) => this.#send(picture));
    this.link = new Link(url, () => this.#options(), {
      state: (state) => this.#state(state),
      created: (created) => this.#created(created),
      message: (message) => this.#take(message),
    });
    this.#pinging = setInterval(() => {
      const { stream } = this.link;
      if (stream?.connected) stream.ping().catch(() => {}); // a broken session is told by its own end
    }, PING_EVERY_MS);
  }

  /** Run until stopped, ended or refused. */
  async run() {
    this.resume();
    try {
      await this.link.run();
    } finally {
      clearInterval(this.#pinging);
      this.pause();
      this.views.events.endAll(this.lastMs);
    }
  }

  /** Take pictures, or go on after a pause. */
  resume() {
    this.capture.fps = this.page.fps();
    this.capture.start(this.source.clockMs);
  }

  /** Take no pictures; the session stays. */
  pause() {
    this.capture.stop();
  }

  /** Let the server answer what is under way, then end. */
  async stop() {
    this.pause();
    try {
      await this.link.stop();
    } finally {
      this.source.close(); // the camera goes dark, however the session ended
    }
  }

  /** Use the words on the page from the next frame on. */
  async updateWords() {
    const stream = this.link.stream;
    if (!stream || this.#updating || this.#words() === this.#sentWords) return;
    this.#updating = true;
    this.#sentWords = this.#words();
    try {
      const updated = await stream.updateVocabulary(this.views.words.vocabulary());
      this.views.words.setNote(updated.warnings.join(" "));
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      if (this.link.stream === stream) this.views.words.setNote(`Old words stay: ${why}`);
    } finally {
      this.#updating = false;
    }
    await this.updateWords(); // what was typed meanwhile
  }

  #words() {
    return JSON.stringify(this.views.words.vocabulary());
  }

  /** @returns {Options} */
  #options() {
    this.#sentWords = this.#words();
    return { ...this.page.options(), ...this.views.words.vocabulary() };
  }

  /** @param {LinkState} state */
  #state(state) {
    if (state.is !== "live") {
      this.views.words.clear();
      this.views.leader("", 0);
    }
    this.page.state(state);
  }

  /** @param {SessionCreated} created */
  #created(created) {
    this.created = created;
    if (created.resumed) {
      this.#labels.set(created.vocabulary_version, created.labels); // older ones may be replayed
    } else {
      this.#labels = new Map([[created.vocabulary_version, created.labels]]);
      this.#frames.clear();
      this.views.events.endAll(this.lastMs);
      this.views.window.reset(created.window, created.model.scorer);
    }
    this.views.words.setNote(created.warnings.join(" "));
    this.page.created(created);
    queueMicrotask(() => this.updateWords());
  }

  /** @param {import("./capture.js").Picture} picture */
  #send(picture) {
    const stream = this.link.stream;
    const behind =
      !stream?.connected ||
      stream.bufferedBytes > MOST_BUFFERED_BYTES ||
      stream.unanswered >= MOST_UNANSWERED;
    this.lastMs = picture.timestampMs;
    if (behind) return this.views.speed.unsent();
    this.#frames.add(stream.sendFrame(picture.blob, picture.timestampMs), picture);
    this.views.speed.sent();
  }

  /** @param {StreamMessage} message */
  #take(message) {
    const { views } = this;
    const seq = "seq" in message ? message.seq : undefined;
    const frame = seq === undefined ? undefined : this.#frames.withSeq(seq);
    views.speed.take(message, frame?.sentAtMs);
    switch (message.type) {
      case "prediction":
        return this.#show(message, frame?.thumb);
      case "vocabulary.updated":
        this.#labels.set(message.vocabulary_version, message.labels);
        return;
      case "session.was_reset":
        return this.created && views.window.reset(this.created.window, this.created.model.scorer);
      case "event":
        return this.#takeEvent(message);
      case "goaway":
        return views.status.notice(`The server will close soon: ${message.reason}.`);
      case "client.frames_lost":
        return views.speed.lost(message.seqs.length);
      case "error":
        if (message.seq !== undefined) views.status.notice(`A frame was refused: ${message.message}`);
    }
  }

  /** @param {import("./protocol.js").ActionEvent} event */
  #takeEvent(event) {
    const { events, status, timeline } = this.views;
    const startMs = event.start_ms ?? event.timestamp_ms;
    const probability = Math.max(event.probability, timeline.peak(event.label, startMs));
    events.take({ ...event, probability }, this.#frames.nearest(startMs)?.blob);
    if (event.kind === "start") status.announce(`${event.label} began`);
  }

  /**
   * @param {Prediction} prediction
   * @param {HTMLCanvasElement | undefined} thumb
   */
  #show(prediction, thumb) {
    const { views } = this;
    const shares = this.#shares(prediction);
    const { timestamp_ms: ms, background } = prediction;
    views.words.show(shares, background, this.page.enter());
    views.events.follow(shares);
    views.window.push(prediction, thumb);
    const plain = [...shares].map(([label, share]) => /** @type {const} */ ([label, share.probability]));
    views.timeline.push({ ms, shares: new Map(plain), background });
    const [label, share] = plain.reduce((best, next) => (next[1] > best[1] ? next : best), ["", -1]);
    if (share > background) views.leader(label, share);
    else views.leader("none of these", background);
  }

  /**
   * @param {Prediction} prediction
   * @returns {Shares}
   */
  #shares({ vocabulary_version, probabilities, similarities, top }) {
    if (top) return new Map(top.map(({ label, ...share }) => [label, share]));
    const labels = this.#labels.get(vocabulary_version) ?? [];
    return new Map(
      labels.map((label, index) => {
        return [label, { probability: probabilities?.[index] ?? 0, similarity: similarities?.[index] }];
      }),
    );
  }
}
