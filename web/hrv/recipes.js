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

/** @typedef {Want & { parts: { left: number } }} Making a recipe, with the parts that it may still have */

// The server takes no larger ones (host/routes/recipes.py), and what is merged with itself again and again grows fast.
const MOST_PARTS = 64;

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
  const parts = { left: MOST_PARTS };
  const made = partOf(place, { ...want, parts });
  return parts.left < 0 ? ofLastRun(place, want) : made;
}

/**
 * @param {Place} place
 * @param {Making} want
 * @returns {Recipe | null}
 */
function partOf(place, want) {
  want.parts.left -= 1;
  if (want.parts.left < 0) return null;
  const known = RECIPES[String(place.node.type)]?.(place, want);
  if (known && Object.values(known).every((part) => part !== null && part !== undefined)) return known;
  return ofLastRun(place, want);
}

/**
 * @param {Place} place
 * @param {string} input
 * @param {Making} want
 * @returns {Recipe | null}
 */
function partOfInput(place, input, want) {
  const source = sourceOf(place, input);
  return source && partOf(source, want);
}

/**
 * @param {Place} place
 * @param {Want} want
 * @returns {Recipe | null}
 */
function ofLastRun(place, { lastRun }) {
  const digest = lastRun(place);
  return digest === undefined ? null : { from: "run", digest };
}

/** @type {Record<string, (place: Place, want: Making) => Record<string, unknown> & { from: string } | null>} */
const RECIPES = {
  HRV_Load: (place) => ({ from: "file", name: widgetValue(place, "file") }),
  HRV_Published: (place) => ({ from: "published", name: widgetValue(place, "name") }),
  HRV_ImportNpy: (place, want) => ({
    from: "npy",
    vectors: widgetValue(place, "vectors"),
    head_index: widgetValue(place, "head_index"),
    ...(sourceOf(place, "concepts") && { vocabulary: partOfInput(place, "concepts", want) }),
  }),
  HRV_PickConcepts: (place, want) => {
    const concepts = widgetValue(place, "concepts");
    return {
      from: "pick",
      hrv: partOfInput(place, "hrv", want),
      concepts: typeof concepts === "string" ? splitNames(concepts) : null,
    };
  },
  HRV_Clamp: (place, want) => ({
    from: "clamp",
    hrv: partOfInput(place, "hrv", want),
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
 * @param {Making} want
 */
function several(from, place, want) {
  const inputs = place.node.inputs.filter(({ type, link }) => type === "HRV" && link !== null && link !== undefined);
  const hrvs = inputs.map(({ name }) => partOfInput(place, name, want));
  return { from, hrvs: hrvs.length && !hrvs.includes(null) ? hrvs : null };
}

/**
 * A build has the concepts of its vocabulary, and values only from a run.
 * @param {Place} place
 * @param {Making} want
 */
function built(place, want) {
  return want.values ? null : partOfInput(place, "concepts", want);
}
