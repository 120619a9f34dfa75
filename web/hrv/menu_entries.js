// The entries of the menu of a field that names concepts or words.

import { fold, nameComplaint, splitNames, toggledName, unknownNames } from "./names.js";
import { say } from "./texts.js";
import { ALL_WORDS, gonePhrases, offeredWords, wordComplaint } from "./words.js";

/**
 * @typedef {object} Field
 * @property {boolean} [several] whether it takes several names, separated by commas
 * @property {string} [empty] what it means when it is empty, if it may be
 * @property {string} [all] what the name "*" means, if it means anything
 */

/**
 * @typedef {object} Choices what can be named
 * @property {readonly string[]} names
 * @property {(names: string[]) => string[]} unknown those that cannot
 * @property {(names: string[]) => string | null} complaint what is wrong with some names
 */

/** The entry that asks for a name instead: what there is may be known to the server alone. */
export const typeAName = () => say("… type");

/**
 * @param {readonly string[]} concepts
 * @returns {Choices}
 */
export function conceptChoices(concepts) {
  return {
    names: concepts,
    unknown: (names) => unknownNames(names, concepts),
    complaint: (names) => nameComplaint(names, concepts),
  };
}

/**
 * @param {readonly (readonly string[])[]} prompts the words of each
 * @returns {Choices}
 */
export function wordChoices(prompts) {
  return {
    names: offeredWords(prompts),
    unknown: (phrases) => gonePhrases(phrases, prompts),
    complaint: (phrases) => wordComplaint(phrases, prompts),
  };
}

/**
 * The entries of a menu in order, and what is wrong with the value that it has.
 * @param {string} value
 * @param {Choices | null} choices null while they are not known
 * @param {Field} field
 */
export function menuEntries(value, choices, field) {
  const names = field.several ? splitNames(value) : [value];
  const isEmpty = field.several ? names.length === 0 : fold(value) === "";
  const complaint = choices && !(isEmpty && field.empty) ? choices.complaint(names) : null;
  /** @type {{ option: string, label: string }[]} */
  const options = [];
  const add = (/** @type {string} */ option, /** @type {string} */ label) => {
    if (!options.some((other) => other.option === option)) options.push({ option, label });
  };
  if (field.empty) add("", say(field.empty));
  if (field.all) add(ALL_WORDS, say(field.all));
  if (!isEmpty && complaint === null && (field.several || !choices)) add(value, value);
  if (field.several) {
    const others = value.trim() === ALL_WORDS && field.all ? "" : value;
    const chosen = new Set(names.map(fold));
    for (const name of choices?.names ?? []) add(toggledName(others, name), `${chosen.has(fold(name)) ? "✓ " : ""}${name}`);
    for (const name of choices?.unknown(names) ?? []) add(toggledName(others, name), `✗ ${name}`);
  } else {
    for (const name of choices?.names ?? []) {
      const own = fold(name) === fold(value) ? value : name;
      add(own, own);
    }
  }
  add(typeAName(), typeAName());
  return { complaint, options };
}
