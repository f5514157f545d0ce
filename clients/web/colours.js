/** One of eight theme colours for each label; a row that is renamed keeps its colour. */

const COUNT = 8;

/** @type {Map<string, number>} */
const chosen = new Map();

/**
 * @param {string} label
 * @param {number} index
 */
export function setColour(label, index) {
  chosen.set(label, index);
}

/**
 * Name of the theme colour of a label, e.g. "action-2".
 * @param {string} label
 */
export function colourName(label) {
  return `action-${chosen.get(label) ?? 0}`;
}

/**
 * Return the index that the fewest of these use.
 * @param {number[]} used
 */
export function freeColour(used) {
  const counts = Array.from({ length: COUNT }, (_, i) => used.filter((index) => index === i).length);
  return counts.indexOf(Math.min(...counts));
}
