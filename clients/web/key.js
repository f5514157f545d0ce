/** The API key: asked for when the server wants one, kept for this tab alone. */

import { find } from "./dom.js";

const PLACE = "ovoad.key";

/** The key given before, if any. */
export function storedKey() {
  return sessionStorage.getItem(PLACE) ?? undefined;
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
  find("key-form", HTMLFormElement).onsubmit = () => {
    sessionStorage.setItem(PLACE, input.value.trim());
  };
  dialog.showModal();
  return new Promise((resolve) => {
    const done = () => resolve(input.value && dialog.returnValue !== "" ? storedKey() : undefined);
    dialog.addEventListener("close", done, { once: true });
  });
}
