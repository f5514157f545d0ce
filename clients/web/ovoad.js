/**
 * Stream frames to an ovoad server and read its answers, over breaks too. Knows no video and no page.
 *
 *     import { connect } from "./ovoad.js";
 *     const stream = await connect("http://127.0.0.1:8000", { labels: ["riding a bicycle"] });
 *     stream.sendFrame(jpeg, 0); // a Blob or bytes, and the frame's own time in ms
 *     for await (const message of stream)
 *       if (message.type === "prediction") console.log(message.probabilities, message.background);
 *
 * Runs in browsers and in node 22; node 20 needs --experimental-websocket, or a WebSocket class of a
 * package given as `WebSocket`.
 */

import { Stream } from "./stream.js";

export * from "./protocol.js";
export { streamAddress } from "./connection.js";
export { StreamError } from "./errors.js";
export { Stream } from "./stream.js";

/** @typedef {import("./protocol.js").EventSettings} EventSettings */
/** @typedef {import("./protocol.js").Policy} Policy */
/** @typedef {import("./reconnecting.js").Reconnect} Reconnect */

/**
 * @typedef {object} Options
 * @property {string[]} labels actions in plain words
 * @property {string[]} [templates] prompts with one "{}" each
 * @property {string[]} [background] sentences that mean "none of these"
 * @property {Policy} [policy] realtime (the newest frame wins) or lossless (each frame is predicted)
 * @property {string} [scorer]
 * @property {number} [topK] only the best K labels in each prediction
 * @property {EventSettings} [events]
 * @property {string} [apiKey]
 * @property {{token: string, last_seq?: number}} [resume] of a session that another stream has left
 * @property {Partial<Reconnect> | false} [reconnect] after a break; false: never
 * @property {number} [openTimeoutMs] until session.created, default 10 000
 * @property {number} [timeoutMs] for every other answer that is due, default 30 000
 * @property {typeof globalThis.WebSocket} [WebSocket]
 */

/**
 * Open a session. The first connection is tried once.
 * @param {string} url
 * @param {Options} options
 * @returns {Promise<Stream>}
 * @throws {StreamError}
 */
export async function connect(url, options) {
  const { labels, templates, background, policy, scorer, topK, events, resume } = options;
  const vocabulary = { labels, templates, background };
  const about = { vocabulary, policy, scorer, top_k: topK, events, resume };
  const stream = new Stream(url, options);
  await stream.open({ type: "session.create", ...about });
  return stream;
}
