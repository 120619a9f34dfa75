// Which prompts a conditioning was made from, as far as the graph says.

import { sourceOf, widgetValue } from "./sources.js";

/** @import { Place } from "./graph.js" */

// Nodes that know their text. Any other one that gives a conditioning makes it from those that it takes.
const ENCODERS = new Set(["HRV_TextEncode", "HRV_TagConditioning"]);
const LONGEST_WAY = 100;

/**
 * The texts behind an input, in the order of the inputs on the way; null if one of them is not known before a run.
 * @param {Place} place
 * @param {string} input
 * @param {(place: Place) => string | undefined} lastText the text of a node in its last run
 * @param {number} [way] nodes still to go at most
 * @returns {string[] | null}
 */
export function textsBehind(place, input, lastText, way = LONGEST_WAY) {
  const source = sourceOf(place, input);
  if (!source || way === 0) return null;
  if (ENCODERS.has(String(source.node.type))) {
    const text = textOf(source, lastText);
    return text === undefined ? null : [text];
  }
  const taken = source.node.inputs.filter(({ type, link }) => type === "CONDITIONING" && link !== null && link !== undefined);
  if (taken.length === 0) return null;
  /** @type {string[]} */
  const found = [];
  for (const { name } of taken) {
    const texts = textsBehind(source, name, lastText, way - 1);
    if (!texts) return null;
    found.push(...texts);
  }
  return [...new Set(found)];
}

/**
 * The text that a node will encode, or that it encoded last if that is decided only when it runs.
 * @param {Place} place
 * @param {(place: Place) => string | undefined} lastText
 * @returns {string | undefined}
 */
export function textOf(place, lastText) {
  const text = widgetValue(place, "text");
  return typeof text === "string" && !isDynamic(text) ? text : lastText(place);
}

/**
 * Whether the page chooses among alternatives, as in "a {red|blue} cat", when the prompt is queued.
 * @param {string} text
 */
export function isDynamic(text) {
  return /(?<!\\)[{}]|\/\/|\/\*/.test(text);
}
