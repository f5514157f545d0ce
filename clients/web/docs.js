// The reference at /docs: Swagger UI for the HTTP routes, a plain list for the WebSocket's messages.

/**
 * @typedef {{ title: string, summary: string, examples?: { payload: unknown }[], "x-example-hex"?: string }} MessageFacts
 * @typedef {{ code: number, meaning: string, reconnect: string }} CloseFacts
 * @typedef {{ action: "send" | "receive", messages: { $ref: string }[], reply?: { messages: { $ref: string }[] } }} Operation
 * @typedef {{
 *   channels: { stream: { summary: string, "x-close-codes": CloseFacts[] } },
 *   operations: Record<string, Operation>,
 *   components: { messages: Record<string, MessageFacts> },
 * }} StreamDescription
 */

/**
 * @param {string} tag
 * @param {...(string | Node)} content
 */
function element(tag, ...content) {
  const made = document.createElement(tag);
  made.append(...content);
  return made;
}

/**
 * Which messages the server takes; all others it sends.
 * @param {StreamDescription} description
 */
function namesOfReceived(description) {
  const received = Object.values(description.operations).filter(({ action }) => action === "receive");
  return new Set(received.flatMap(({ messages }) => messages.map(({ $ref }) => $ref.split("/").at(-1))));
}

/** @param {StreamDescription} description */
function showStream(description) {
  const { summary, "x-close-codes": closes } = description.channels.stream;
  const received = namesOfReceived(description);
  const place = /** @type {HTMLElement} */ (document.getElementById("messages"));
  /** @type {HTMLElement} */ (document.getElementById("stream-summary")).textContent = summary;
  for (const [name, message] of Object.entries(description.components.messages)) {
    const direction = received.has(name) ? "client to server" : "server to client";
    const example = message.examples ? JSON.stringify(message.examples[0].payload, null, 2) : message["x-example-hex"] ?? "";
    place.append(
      element("details", element("summary", element("code", message.title), ` · ${direction} · ${message.summary}`), element("pre", example)),
    );
  }
  const rows = closes.map(({ code, meaning, reconnect }) =>
    element("tr", element("td", String(code)), element("td", meaning), element("td", reconnect)),
  );
  document.querySelector("#closes tbody")?.append(...rows);
}

const { SwaggerUIBundle } = /** @type {any} */ (globalThis);
SwaggerUIBundle({
  url: "openapi.json",
  domNode: document.getElementById("routes"),
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null, // no other host is asked
});
showStream(await (await fetch("asyncapi.json")).json());

export {}; // a module, whose own await the types know
