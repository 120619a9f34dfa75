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
 * @returns {string[] | null}
 */
export function textsBehind(place, input, lastText) {
  const texts = encodersBehind(place, input)?.map((encoder) => textOf(encoder, lastText));
  const known = texts?.filter((text) => text !== undefined);
  return texts && known?.length === texts.length ? [...new Set(known)] : null;
}

/**
 * The nodes that encode the prompts behind an input, in the order of the inputs on the way; null if one is not known.
 * @param {Place} place
 * @param {string} input
 * @param {number} [way] nodes still to go at most
 * @returns {Place[] | null}
 */
export function encodersBehind(place, input, way = LONGEST_WAY) {
  const source = sourceOf(place, input);
  if (!source || way === 0) return null;
  if (ENCODERS.has(String(source.node.type))) return [source];
  const taken = source.node.inputs.filter(({ type, link }) => type === "CONDITIONING" && link !== null && link !== undefined);
  const encoders = taken.map(({ name }) => encodersBehind(source, name, way - 1));
  return taken.length > 0 && encoders.every((found) => found !== null) ? encoders.flat() : null;
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
