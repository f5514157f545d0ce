/** Lists of actions: those to begin with, and one's own of the last visit. Knows no server. */

import { find, make } from "./dom.js";
import { recall, remember } from "./store.js";

const PLACE = "ovoad.words";
const EXAMPLES = ["drinking from a cup", "talking on the phone", "reading a book"];

/** @type {[name: string, labels: string[]][]} */
const IDEAS = [
  ["At a desk", EXAMPLES],
  ["Kitchen", ["chopping vegetables", "stirring a pot", "washing dishes"]],
  ["Sports", ["kicking a ball", "doing push-ups", "swinging a racket"]],
  ["Street", ["riding a bicycle", "walking across the street", "driving a car"]],
];

/**
 * Make a button for each list; choosing one replaces the words.
 * @param {string[]} labels the words there are
 * @param {(labels: string[]) => void} choose
 */
export function offerIdeas(labels, choose) {
  find("ideas", HTMLDivElement).hidden = !isIdea(labels);
  const buttons = IDEAS.map(([name, idea]) => {
    const button = Object.assign(make("button", "idea", name), { type: "button" });
    button.addEventListener("click", () => choose(idea));
    return button;
  });
  find("ideas", HTMLDivElement).replaceChildren(...buttons);
}

/**
 * Keep the words for the next visit; lists are offered only while no list of one's own would be lost.
 * @param {string[]} labels
 */
export function keepWords(labels) {
  remember(PLACE, JSON.stringify(labels));
  find("ideas", HTMLDivElement).hidden = !isIdea(labels);
}

/** @returns {string[]} the words of the last visit, or the first list */
export function keptWords() {
  try {
    const labels = JSON.parse(recall(PLACE) ?? "[]");
    const usable = Array.isArray(labels) && labels.every((label) => typeof label === "string");
    return usable && labels.length ? labels : EXAMPLES;
  } catch {
    return EXAMPLES;
  }
}

/** @param {string[]} labels whether these are one of the lists, as it is */
export function isIdea(labels) {
  return IDEAS.some(([, idea]) => JSON.stringify(idea) === JSON.stringify(labels));
}
