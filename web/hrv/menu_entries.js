// The entries of a concept field's menu.

import { fold, nameComplaint, splitNames, toggledName, unknownNames } from "./names.js";

/**
 * @typedef {object} Field
 * @property {boolean} [several] whether it takes several names, separated by commas
 * @property {string} [empty] what it means when it is empty, if it may be
 */

/** The entry that asks for a name instead: an HRV may be known to the server alone. */
export const TYPE_A_NAME = "… type a name";

/**
 * The entries of a menu in order, and what is wrong with the value that it has.
 * @param {string} value
 * @param {string[] | null} concepts
 * @param {Field} field
 */
export function menuEntries(value, concepts, field) {
  const names = field.several ? splitNames(value) : [value];
  const isEmpty = field.several ? names.length === 0 : fold(value) === "";
  const complaint = concepts && !(isEmpty && field.empty) ? nameComplaint(names, concepts) : null;
  const chosen = new Set(names.map(fold));
  /** @type {{ option: string, label: string }[]} */
  const options = [];
  if (field.empty) options.push({ option: "", label: field.empty });
  if (field.several && !isEmpty && complaint === null) options.push({ option: value, label: value });
  for (const concept of concepts ?? []) {
    const isChosen = chosen.has(fold(concept));
    if (field.several) {
      options.push({ option: toggledName(value, concept), label: `${isChosen ? "✓ " : ""}${concept}` });
    } else {
      options.push({ option: isChosen ? value : concept, label: isChosen ? value : concept });
    }
  }
  for (const name of concepts && field.several ? unknownNames(names, concepts) : []) {
    options.push({ option: toggledName(value, name), label: `✗ ${name}` });
  }
  if (!concepts && !field.several) options.push({ option: value, label: value });
  options.push({ option: TYPE_A_NAME, label: TYPE_A_NAME });
  return { complaint, options };
}
