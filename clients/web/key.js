/**
 * The API key: asked for when the server wants one, kept for this tab alone. Where the browser keeps
 * nothing, the page itself remembers the key until it is left.
 */

import { find } from "./dom.js";

const PLACE = "ovoad.key";

/** @type {string | undefined} */
let given;

/** The key given before, if any. */
export function storedKey() {
  try {
    return given ?? sessionStorage.getItem(PLACE) ?? undefined;
  } catch {
    return undefined; // storage is forbidden, and this page was given no key
  }
}

/** @param {string} key */
export function keepKey(key) {
  given = key;
  try {
    sessionStorage.setItem(PLACE, key);
  } catch {
    // storage is forbidden or full: the key is asked for again after a reload
  }
}

/**
 * Ask for the key; resolves with it, or with undefined when the person gave none.
 * @param {string} why
 * @returns {Promise<string | undefined>}
 */
export function askForKey(why) {
  const dialog = find("key-dialog", HTMLDialogElement);
  const input = find("key", HTMLInputElement);
  find("key-why", HTMLParagraphElement).textContent = why;
  input.value = "";
  dialog.returnValue = "";
  find("key-cancel", HTMLButtonElement).onclick = () => dialog.close("");
  find("key-form", HTMLFormElement).onsubmit = () => keepKey(input.value.trim());
  dialog.showModal();
  return new Promise((resolve) => {
    const done = () => resolve(input.value && dialog.returnValue !== "" ? storedKey() : undefined);
    dialog.addEventListener("close", done, { once: true });
  });
}
