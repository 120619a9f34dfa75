// The fields of nodes that name words of the prompt.

import { isSubject, namesWord, toggledSubject, toggledWord } from "./words.js";

/** @import { Field } from "./menu_entries.js" */

/**
 * What clicks on the words of a prompt do to a field.
 * @typedef {object} Clicks
 * @property {(text: string, word: string) => boolean} has
 * @property {(text: string, word: string) => string} toggled
 */

/**
 * @typedef {object} WordField
 * @property {string} name of the widget
 * @property {Field} [menu] if the field is a menu
 * @property {Clicks} [clicks] if clicks change it
 */

/** @type {WordField} */
const ACTED_ON = {
  name: "words",
  menu: { several: true, empty: "no words: no effect", all: "all words" },
  clicks: { has: namesWord, toggled: toggledWord },
};

/** By node class.
 * @type {Record<string, WordField>}
 */
export const WORD_FIELDS = {
  HRV_ConceptStrengthen: ACTED_ON,
  HRV_ConceptAdjust: ACTED_ON,
  HRV_WeakenHeads: ACTED_ON,
  HRV_ScaleHeads: ACTED_ON,
  HRV_EditWords: ACTED_ON,
  HRV_LocalBlend: { name: "words", menu: { several: true, empty: "the words that were changed" } },
  HRV_AttendAndExcite: { name: "subjects", clicks: { has: isSubject, toggled: toggledSubject } },
};
