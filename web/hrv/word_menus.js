// Fields for words of the prompt as menus of the words of the prompt that is connected.

import { addMenu } from "./field_menus.js";
import { wordChoices } from "./menu_entries.js";
import { lastText } from "./page.js";
import { textsBehind } from "./prompts.js";
import { known } from "./server.js";
import { say } from "./texts.js";
import { WORD_FIELDS } from "./word_fields.js";

/** @import { Place } from "./graph.js" */
/** @import { Known } from "./field_menus.js" */
/** @import { PageNode } from "./page.js" */
/** @import { Word } from "./words.js" */

/**
 * Turn the field for words of a new node into a menu.
 * @param {PageNode} node
 */
export function addWordMenu(node) {
  const field = WORD_FIELDS[String(node.comfyClass)];
  if (field?.menu) addMenu(node, field.name, field.menu, wordsAt);
}

/**
 * The words that a node's field can name.
 * @param {Place[]} places
 * @returns {Known}
 */
function wordsAt(places) {
  /** @type {string[][]} */
  const prompts = [];
  for (const place of places) {
    const texts = textsBehind(place, "conditioning", lastText);
    if (!texts) return { choices: null, why: say("The words of this prompt are known after a run.") };
    for (const text of texts) {
      const words = /** @type {Word[] | undefined} */ (known("/hrv/tokens", { text }).answer?.words);
      if (!words) return { choices: null };
      prompts.push(words.map((word) => word.text));
    }
  }
  return { choices: wordChoices(prompts) };
}
