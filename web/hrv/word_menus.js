// Fields for words of the prompt as menus of the words of the prompt that is connected.

import { addMenu } from "./field_menus.js";
import { wordChoices } from "./menu_entries.js";
import { tokensAt } from "./prompt_tokens.js";
import { encodersBehind } from "./prompts.js";
import { say } from "./texts.js";
import { WORD_FIELDS } from "./word_fields.js";
import { namesIn } from "./words.js";

/** @import { Place } from "./graph.js" */
/** @import { Known } from "./field_menus.js" */
/** @import { PageNode } from "./page.js" */

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
    const encoders = encodersBehind(place, "conditioning");
    if (!encoders) return { choices: null, why: say("The words of this prompt are known after a run.") };
    for (const encoder of encoders) {
      const found = tokensAt(encoder);
      if (!found.tokens) return { choices: null, ...(found.why ? { why: found.why } : {}) };
      prompts.push(namesIn(found.tokens));
    }
  }
  return { choices: wordChoices(prompts) };
}
