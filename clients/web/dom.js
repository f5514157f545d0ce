/** Find and make elements, with types. */

/**
 * Return the element with this id; a missing one is our own mistake.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function find(id, type) {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`found no ${type.name} #${id}`);
  return element;
}

/**
 * Make an element.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} className
 * @param {string} [text]
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** @param {number} share 0 to 1 */
export function percent(share) {
  return `${Math.round(100 * share)}%`;
}

/**
 * Return a colour of the theme in force, for drawing on a canvas.
 * @param {string} name without the leading dashes
 */
export function themeColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
