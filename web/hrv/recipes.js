// What the graph says of an HRV before it is made: a recipe for the server (host/routes/recipes.py).

import { splitNames } from "./names.js";
import { sourceOf, widgetValue } from "./sources.js";

/** @import { Place } from "./graph.js" */

/** @typedef {{ from: string } & Record<string, unknown>} Recipe */
/** @typedef {(place: Place) => string | undefined} LastRun the digest of the HRV that a node gave in its last run */

/**
 * @typedef {object} Want
 * @property {boolean} values whether the values are wanted, or the names of the concepts only
 * @property {LastRun} lastRun
 */

/**
 * The recipe of what an input of a node takes, or null if nothing is known of it before a run.
 * @param {Place} place
 * @param {string} input
 * @param {Want} want
 * @returns {Recipe | null}
 */
export function recipeOfInput(place, input, want) {
  const source = sourceOf(place, input);
  return source && recipeOf(source, want);
}

/**
 * The recipe of the HRV or the vocabulary that a node gives, or null if nothing is known of it before a run.
 * @param {Place} place
 * @param {Want} want
 * @returns {Recipe | null}
 */
export function recipeOf(place, want) {
  const known = RECIPES[String(place.node.type)]?.(place, want);
  if (known && Object.values(known).every((part) => part !== null && part !== undefined)) return known;
  const digest = want.lastRun(place);
  return digest === undefined ? null : { from: "run", digest };
}

/** @type {Record<string, (place: Place, want: Want) => Record<string, unknown> & { from: string } | null>} */
const RECIPES = {
  HRV_Load: (place) => ({ from: "file", name: widgetValue(place, "file") }),
  HRV_Published: (place) => ({ from: "published", name: widgetValue(place, "name") }),
  HRV_ImportNpy: (place, want) => ({
    from: "npy",
    vectors: widgetValue(place, "vectors"),
    head_index: widgetValue(place, "head_index"),
    ...(sourceOf(place, "concepts") && { vocabulary: recipeOfInput(place, "concepts", want) }),
  }),
  HRV_PickConcepts: (place, want) => {
    const concepts = widgetValue(place, "concepts");
    return {
      from: "pick",
      hrv: recipeOfInput(place, "hrv", want),
      concepts: typeof concepts === "string" ? splitNames(concepts) : null,
    };
  },
  HRV_Clamp: (place, want) => ({
    from: "clamp",
    hrv: recipeOfInput(place, "hrv", want),
    limit: widgetValue(place, "limit"),
  }),
  HRV_Merge: (place, want) => several("merge", place, want),
  HRV_Mean: (place, want) => several("mean", place, want),
  HRV_Build: built,
  HRV_BuildCausal: built,
  HRV_Instant: built,
  HRV_Concepts: (place) => ({ from: "vocabulary", text: widgetValue(place, "concepts") }),
  HRV_ScorerMini: () => ({ from: "mini" }),
  HRV_ImportConcepts: (place) => ({ from: "words", file: widgetValue(place, "file") }),
};

/**
 * @param {string} from
 * @param {Place} place
 * @param {Want} want
 */
function several(from, place, want) {
  const inputs = place.node.inputs.filter(({ type, link }) => type === "HRV" && link !== null && link !== undefined);
  const hrvs = inputs.map(({ name }) => recipeOfInput(place, name, want));
  return { from, hrvs: hrvs.length && !hrvs.includes(null) ? hrvs : null };
}

/**
 * A build has the concepts of its vocabulary, and values only from a run.
 * @param {Place} place
 * @param {Want} want
 */
function built(place, want) {
  return want.values ? null : recipeOfInput(place, "concepts", want);
}
