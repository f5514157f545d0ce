/** What this browser remembers for the page. Where it may not keep anything, nothing is kept. */

/**
 * @param {string} place
 * @returns {string | undefined}
 */
export function recall(place) {
  try {
    return localStorage.getItem(place) ?? undefined;
  } catch {
    return undefined;
  }
}

/**
 * @param {string} place
 * @param {string} text
 */
export function remember(place, text) {
  try {
    localStorage.setItem(place, text);
  } catch {
    // storage is forbidden or full: the page works without
  }
}
