// Concept fields as menus of the concepts of the HRV that is connected.

import { addMenu } from "./field_menus.js";
import { conceptChoices } from "./menu_entries.js";
import { fold } from "./names.js";
import { recipeOfInput } from "./recipes.js";
import { known } from "./server.js";
import { lastHRV } from "./statuses.js";
import { say } from "./texts.js";

/** @import { Place } from "./graph.js" */
/** @import { Field } from "./menu_entries.js" */
/** @import { Known } from "./field_menus.js" */
/** @import { PageNode } from "./page.js" */

const ALL = { several: true, empty: "all concepts" };

/** The concept fields by node class and widget.
 * @type {Record<string, Record<string, Field>>}
 */
const FIELDS = {
  HRV_ConceptStrengthen: { concept: {} },
  HRV_ConceptAdjust: { desired: {}, undesired: {} },
  HRV_WeakenHeads: { concept: {} },
  HRV_ReadByConcept: { concept: {} },
  HRV_PromptEdit: { concept: {} },
  HRV_EditWords: { concept: {} },
  HRV_OrderedWeakening: { concept: {} },
  HRV_FactorSweep: { concept: {} },
  HRV_Score: { concept: {} },
  HRV_PickConcepts: { concepts: { several: true } },
  HRV_HeatMap: { concepts: ALL },
  HRV_Rank: { concepts: ALL },
  HRV_Compare: { concepts: ALL },
  HRV_WeakeningSummary: { concepts: { ...ALL, empty: "all that the experiment has" } },
  HRV_QuickCheck: { concepts: { ...ALL, empty: "all that the experiment has" } },
};

const INPUTS = ["hrv", "other", "scorer"]; // a node with several needs concepts that all have, as far as they are known

/**
 * Turn the concept fields of a new node into menus.
 * @param {PageNode} node
 */
export function addConceptMenus(node) {
  const fields = FIELDS[String(node.comfyClass)] ?? {};
  for (const [name, field] of Object.entries(fields)) addMenu(node, name, field, conceptsAt);
}

/**
 * The concepts that a node's fields can name.
 * @param {Place[]} places
 * @returns {Known}
 */
function conceptsAt(places) {
  const lists = [];
  for (const place of places) {
    for (const input of INPUTS) {
      const recipe = recipeOfInput(place, input, { values: false, lastRun: lastHRV });
      const concepts = recipe && known("/hrv/concepts", recipe).answer?.concepts;
      if (concepts) lists.push(/** @type {string[]} */ (concepts));
    }
  }
  const [first, ...others] = lists;
  if (!first) return { choices: null, why: say("Concepts are known once an HRV or HRV-mini's scorer is connected, or after a run.") };
  const shared = others.map((names) => new Set(names.map(fold)));
  return { choices: conceptChoices(first.filter((name) => shared.every((names) => names.has(fold(name))))) };
}
