// Names of concepts as people write them into fields; the rules are those of hrv/relevance/vocabulary.py, nodes/fields.py.

import { say } from "./texts.js";

/**
 * The form in which names are compared: without case, runs of space as one.
 * @param {string} name
 */
export function fold(name) {
  // To upper case first, as Python's casefold: the German sharp s becomes "ss".
  return name.split(/\s+/).filter(Boolean).join(" ").toUpperCase().toLowerCase();
}

/**
 * The names of a comma-separated field, without empty ones; "\," is a comma inside a name.
 * @param {string} text
 */
export function splitNames(text) {
  return text
    .split(/(?<!\\),/)
    .map((name) => name.replaceAll("\\,", ",").trim())
    .filter(Boolean);
}

/**
 * The field that {@link splitNames} reads as these names.
 * @param {string[]} names
 */
export function joinNames(names) {
  return names.map((name) => name.replaceAll(",", "\\,")).join(", ");
}

/**
 * A field with one name added at its end, or taken away if it is there.
 * @param {string} text
 * @param {string} name
 */
export function toggledName(text, name) {
  const names = splitNames(text);
  const others = names.filter((other) => fold(other) !== fold(name));
  return joinNames(others.length < names.length ? others : [...names, name]);
}

/**
 * Those of some names that are no concept.
 * @param {string[]} names
 * @param {readonly string[]} concepts
 */
export function unknownNames(names, concepts) {
  const known = new Set(concepts.map(fold));
  return names.filter((name) => !known.has(fold(name)));
}

/**
 * What is wrong with some names in a sentence, or null.
 * @param {string[]} names
 * @param {readonly string[]} concepts
 */
export function nameComplaint(names, concepts) {
  const [unknown] = unknownNames(names, concepts);
  if (unknown === undefined) return null;
  const near = closest(unknown, concepts);
  const complaint = say("There is no concept '{name}' in this HRV.", { name: unknown });
  return near ? `${complaint} ${say("Did you mean {name}?", { name: near })}` : complaint;
}

/**
 * The concept that a name is most likely a slip of, or null.
 * @param {string} name
 * @param {readonly string[]} concepts
 */
export function closest(name, concepts) {
  const wanted = fold(name);
  const ranked = concepts
    .map((concept) => ({ concept, slips: distance(wanted, fold(concept)) }))
    .sort((one, other) => one.slips - other.slips);
  const [best] = ranked;
  return best && best.slips <= Math.max(1, Math.floor(wanted.length / 3)) ? best.concept : null;
}

/**
 * How many letters have to be put in, left out or exchanged to get from one text to the other.
 * @param {string} one
 * @param {string} other
 */
function distance(one, other) {
  let row = Array.from({ length: other.length + 1 }, (_, column) => column);
  for (const [line, letter] of [...one].entries()) {
    /** @type {number[]} */
    const next = [line + 1];
    for (const [column, against] of [...other].entries()) {
      const changed = (row[column] ?? 0) + (letter === against ? 0 : 1);
      next.push(Math.min(changed, (row[column + 1] ?? 0) + 1, (next[column] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
