// Which prompts a conditioning was made from, as far as the graph says.

import { executionId } from "./executed.js";
import { sourceOf, widgetValue } from "./sources.js";

/** @import { Place } from "./graph.js" */

// Nodes that know their text. Any other one that gives a conditioning makes it from those that it takes.
const ENCODERS = new Set(["HRV_TextEncode", "HRV_TagConditioning"]);

/**
 * The nodes that encode the prompts behind an input, each once, in the order of the inputs on the way; null if one is
 * not known.
 * @param {Place} place
 * @param {string} input
 * @returns {Place[] | null}
 */
export function encodersBehind(place, input) {
  return encodersOf(sourceOf(place, input), new Map());
}

/**
 * @param {Place | null} source
 * @param {Map<string, Place[] | null>} visited what a node has to add when a further way comes to it
 * @returns {Place[] | null}
 */
function encodersOf(source, visited) {
  if (!source) return null;
  const key = executionId(source);
  const before = visited.get(key);
  if (before !== undefined) return before;
  visited.set(key, null); // a way that comes back to where it is ends nowhere
  const found = ENCODERS.has(String(source.node.type)) ? [source] : encodersTaken(source, visited);
  visited.set(key, found && []);
  return found;
}

/**
 * @param {Place} place
 * @param {Map<string, Place[] | null>} visited
 * @returns {Place[] | null}
 */
function encodersTaken(place, visited) {
  const taken = place.node.inputs.filter(({ type, link }) => type === "CONDITIONING" && link !== null && link !== undefined);
  const encoders = taken.map(({ name }) => encodersOf(sourceOf(place, name), visited));
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
