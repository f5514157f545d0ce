/**
 * What was asked of the server and is still owed: frames and requests, over every connection.
 *
 * Knows no socket: it takes messages, and after a break says what goes out again and what is lost.
 */

import { Waiter } from "./connection.js";
import { StreamError } from "./errors.js";
import { packFrame } from "./protocol.js";

/** @typedef {import("./protocol.js").ServerMessage} ServerMessage */
/** @typedef {import("./protocol.js").SessionCreated} SessionCreated */
/** @typedef {import("./protocol.js").SessionCreate} SessionCreate */
/** @typedef {import("./protocol.js").VocabularyUpdated} VocabularyUpdated */
/** @typedef {import("./protocol.js").ErrorMessage} ErrorMessage */
/** @typedef {Blob | ArrayBuffer | ArrayBufferView} Image */
/** @typedef {{seq: number, timestampMs: number, image: Image}} SentFrame */
/** @typedef {"vocabulary.update" | "session.reset" | "ping"} RequestType */
/** @typedef {{type: RequestType, vocabulary?: import("./protocol.js").Vocabulary}} RequestMessage */
/** @typedef {{message: RequestMessage, beforeSeq: number, waiter: Waiter<any>}} Request its place is
 *   before frame beforeSeq */

export class Ledger {
  /** @type {Map<number, SentFrame | undefined>} */ frames = new Map(); // ascending; lossless keeps them
  nextSeq = 0;
  /** @type {Request[]} */ #requests = [];
  #firstSeq = 0; // of the server's session
  /** @type {number | undefined} */ #answered; // the largest seq that the server's session answered
  #version = 0; // of the words, the newest that was taken in
  // What a replay would begin with: all but answers that came since the answer to #lastSeq.
  /** @type {string[]} */ #told = [];
  /** @type {string[]} */ #repeats = []; // of those, still to come

  /**
   * @param {SessionCreate} create
   * @param {SessionCreated} created
   */
  constructor(create, created) {
    this.created = created;
    this.create = create; // always with the newest words that the server took
    this.nextSeq = created.next_seq ?? 0;
    this.#firstSeq = this.nextSeq;
    this.#version = created.vocabulary_version;
  }

  /** Answers and replies that are still to come. */
  get owed() {
    return this.frames.size + this.#requests.length;
  }

  get lossless() {
    return this.created.policy === "lossless";
  }

  // ---- going out ------------------------------------------------------------------------------

  /**
   * Owe a frame's answer.
   * @param {Image} image
   * @param {number} timestampMs
   */
  pushFrame(image, timestampMs) {
    const seq = this.nextSeq;
    this.nextSeq += 1;
    this.frames.set(seq, this.lossless ? { seq, timestampMs, image } : undefined);
    return seq;
  }

  /**
   * Owe a reply.
   * @param {RequestMessage} message
   */
  pushRequest(message) {
    const request = { message, beforeSeq: this.nextSeq, waiter: new Waiter() };
    this.#requests.push(request);
    return request;
  }

  // ---- coming in ------------------------------------------------------------------------------

  /**
   * Take in a message; false where it repeats one that was taken before a break.
   * @param {ServerMessage} message
   */
  take(message) {
    switch (message.type) {
      case "prediction":
      case "frame.dropped":
        return this.#takeAnswer(message.seq);
      case "vocabulary.updated":
        return this.#takeUpdate(message);
      case "error":
        if (message.seq !== undefined) return this.#takeAnswer(message.seq);
        return this.#takeOther(message);
      case "event":
      case "session.was_reset":
      case "pong":
        return this.#takeOther(message);
    }
    return true;
  }

  /** @param {number} seq */
  #takeAnswer(seq) {
    if (!this.frames.delete(seq)) {
      return !this.created.resumed || seq >= (this.created.next_seq ?? 0);
    }
    this.#answered = Math.max(seq, this.#answered ?? 0);
    if (seq <= (this.#lastSeq() ?? 0)) this.#told = this.#repeats = [];
    return true;
  }

  /** @param {ServerMessage} message */
  #takeOther(message) {
    const text = JSON.stringify(message);
    const repeated = this.#repeats.indexOf(text);
    if (repeated >= 0) {
      this.#repeats = this.#repeats.toSpliced(repeated, 1);
      return false;
    }
    this.#told = [...this.#told, text];
    if (message.type === "session.was_reset") this.#reply("session.reset")?.resolve(undefined);
    if (message.type === "pong") this.#reply("ping")?.resolve(undefined);
    if (message.type === "error") this.#takeComplaint(message);
    return true;
  }

  /** @param {ErrorMessage} error about no frame */
  #takeComplaint({ code, message, fatal }) {
    if (fatal || (code !== "bad_vocabulary" && code !== "bad_message")) return;
    this.#reply("vocabulary.update")?.reject(new StreamError(message, { code }));
  }

  /** @param {VocabularyUpdated} updated */
  #takeUpdate(updated) {
    if (updated.vocabulary_version <= this.#version) return false;
    this.#version = updated.vocabulary_version;
    // After a break the same words may be taken twice: the second time nobody waits for them.
    const first = this.#requests.find(({ message }) => message.type === "vocabulary.update");
    const { vocabulary } = first?.message ?? {};
    if (vocabulary && JSON.stringify(vocabulary.labels) === JSON.stringify(updated.labels)) {
      this.create = { ...this.create, vocabulary };
      this.#reply("vocabulary.update")?.resolve(updated);
    }
    return true;
  }

  /**
   * Take the first open request of a type off the list; requests of one type are answered in turn.
   * @param {RequestType} type
   */
  #reply(type) {
    const index = this.#requests.findIndex(({ message }) => message.type === type);
    return index < 0 ? undefined : this.#requests.splice(index, 1)[0]?.waiter;
  }

  // ---- over a break ---------------------------------------------------------------------------

  /** The first message of the next connection: resume, or begin with today's words. */
  createAgain() {
    const token = this.created.resume_token;
    return { ...this.create, resume: { token, last_seq: this.#lastSeq() } };
  }

  /** The largest seq up to which every frame of the server's session is answered. */
  #lastSeq() {
    if (this.#answered === undefined) return undefined;
    const [oldest = this.nextSeq] = this.frames.keys();
    const last = Math.min(this.#answered, oldest - 1);
    return last >= this.#firstSeq ? last : undefined;
  }

  /**
   * Take in the session.created of a new connection.
   * @param {SessionCreated} created
   * @returns {{again: (SentFrame | RequestMessage)[], sentAgain: number[], lost: number[]}} what goes
   *   out again, in its first order
   */
  goOn(created) {
    this.created = created;
    const nextSeq = created.resumed ? (created.next_seq ?? 0) : 0;
    const seqs = [...this.frames.keys()].filter((seq) => seq >= nextSeq);
    if (!created.resumed) {
      this.#answered = undefined;
      this.#version = created.vocabulary_version;
      this.#told = [];
    }
    this.#repeats = this.#told;
    const kept = seqs.map((seq) => this.frames.get(seq)).filter((frame) => frame !== undefined);
    const again = this.#inOrder(kept, nextSeq);
    if (!this.lossless) for (const seq of seqs) this.frames.delete(seq);
    const [oldest = this.nextSeq] = this.frames.keys();
    if (!created.resumed) this.#firstSeq = oldest;
    return { again, sentAgain: this.lossless ? seqs : [], lost: this.lossless ? [] : seqs };
  }

  /**
   * Frames and requests to send again, each request before the frame it came before. The server has
   * got a request if it has got a frame that was sent after it; a reset or new words that it may have
   * got are safe to repeat, and pongs are no loss.
   * @param {SentFrame[]} frames
   * @param {number} nextSeq
   */
  #inOrder(frames, nextSeq) {
    /** @param {Request} request */
    const isRepeated = ({ message, beforeSeq }) => message.type === "ping" || beforeSeq >= nextSeq;
    this.#requests = this.#requests.filter((one) => !(isRepeated(one) && one.waiter.settled));
    const requests = this.#requests.filter(isRepeated);
    const places = [
      ...requests.map(({ message, beforeSeq }) => ({ place: beforeSeq - 0.5, what: message })),
      ...frames.map((frame) => ({ place: frame.seq, what: frame })),
    ];
    return places.sort((one, other) => one.place - other.place).map(({ what }) => what);
  }

  /**
   * Owe nothing any more: the stream has ended. Returns the seqs of the frames lost.
   * @param {StreamError} failure
   */
  giveUp(failure) {
    for (const { waiter } of this.#requests) waiter.reject(failure);
    const lost = [...this.frames.keys()];
    this.#requests = [];
    this.frames.clear();
    return lost;
  }
}

/**
 * Return the binary message of one frame.
 * @param {number} seq
 * @param {number} timestampMs
 * @param {Image} image
 */
export async function pack(seq, timestampMs, image) {
  return packFrame(seq, timestampMs, image instanceof Blob ? await image.arrayBuffer() : image);
}
