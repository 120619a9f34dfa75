// Heat maps on the nodes that give or take an HRV.

import { difference, headName, readHRV } from "./heads.js";
import { HeatMapView } from "./heat_map_view.js";
import { asGraphNode, isOurs, rootGraph } from "./page.js";
import { keep, kept } from "./panels.js";
import { recipeOf, recipeOfInput } from "./recipes.js";
import { ask, known } from "./server.js";
import { placesOf, widgetValue } from "./sources.js";
import { lastHRV } from "./statuses.js";
import { say } from "./texts.js";

/** @import { Place } from "./graph.js" */
/** @import { HRV } from "./heads.js" */
/** @import { Shown, State } from "./heat_map_view.js" */
/** @import { LGraphNode, PageNode, PageWidget } from "./page.js" */
/** @import { Panel } from "./panels.js" */
/** @import { Recipe } from "./recipes.js" */

// What decides which heads a control acts on, by node class.
const PICKING = /** @type {Record<string, string[]>} */ ({
  HRV_WeakenHeads: ["concept", "order", "heads", "unit", "seed"],
  HRV_ReadByConcept: ["concept", "heads", "gates"],
});
const CONCEPT_FIELDS = ["concept", "desired"];
const SCALE_HEADS = "HRV_ScaleHeads";

/** @type {WeakMap<object, HRV>} */
const readAnswers = new WeakMap();

/** @type {Panel} */
export const HEADS = {
  name: "hrv.heads",
  title: "heads",
  width: 320,
  height: 260,
  minHeight: 160,
  openWhenNew: new Set(["HRV_Load", "HRV_Published"]), // as Load Image shows its image
  isFor: (node) => isOurs(node) && (givesHRV(node) || takesHRV(node)),
  make: (node) => {
    const view = new HeatMapView({
      onState: (state) => keep(node, HEADS, state),
      onHead: (hrv, position) => takeHead(node, hrv, position),
    });
    return {
      element: view.element,
      update: () => view.update(shownBy(node), /** @type {State} */ (kept(node, HEADS) ?? {})),
      remove: () => view.remove(),
    };
  },
};

/** @param {PageNode} node */
function givesHRV(node) {
  return node.outputs?.some(({ type }) => type === "HRV");
}

/** @param {PageNode} node */
function takesHRV(node) {
  return node.inputs?.some(({ name, type }) => name === "hrv" && type === "HRV");
}

/**
 * What a node's map shows now.
 * @param {PageNode} node
 * @returns {Shown}
 */
function shownBy(node) {
  const place = placesOf(rootGraph(), asGraphNode(node))[0];
  const want = { values: true, lastRun: lastHRV };
  /** @type {Shown} */
  const shown = { hrvs: new Map(), message: "", concept: null, outlined: new Set() };
  if (!place) return shown;
  const field = CONCEPT_FIELDS.map((name) => widgetValue(place, name)).find((value) => typeof value === "string");
  shown.concept = typeof field === "string" ? field : null;
  const wanted = givesHRV(node) ? recipeOf(place, want) : recipeOfInput(place, "hrv", want);
  if (!wanted) {
    shown.message = givesHRV(node)
      ? say("Its heads are known after a run.")
      : say("Connect an HRV, or run the nodes before this one.");
    return shown;
  }
  const recipe = nextToShow(node, wanted);
  const { hrv = lastShown.get(node), message } = hrvOf(recipe);
  shown.message = message;
  if (message) lastShown.delete(node);
  if (!hrv || message) return shown;
  lastShown.set(node, hrv);
  shown.hrvs.set("hrv", { hrv, isDifference: false });
  const otherRecipe = recipeOfInput(place, "other", want);
  const other = otherRecipe && hrvOf(otherRecipe).hrv;
  if (other) {
    shown.hrvs.set("other", { hrv: other, isDifference: false });
    const less = differenceOf(hrv, other);
    if (less) shown.hrvs.set("hrv − other", { hrv: less, isDifference: true });
  }
  shown.outlined = outlinedHeads(node, place, recipe, hrv);
  return shown;
}

/** What a node's map asked for last. @type {WeakMap<PageNode, Recipe>} */
const lastAsked = new WeakMap();

/**
 * What a node's map asks for: one after the other, as a build may have its next HRV before the last one is here.
 * @param {PageNode} node
 * @param {Recipe} wanted
 */
function nextToShow(node, wanted) {
  const before = lastAsked.get(node);
  if (before && before.from === "run" && wanted.from === "run" && before.digest !== wanted.digest) {
    const { hrv, message } = hrvOf(before);
    if (!hrv && !message) return before;
    if (hrv) lastShown.set(node, hrv);
  }
  lastAsked.set(node, wanted);
  return wanted;
}

/** What a node's map stays at until the next HRV is there. @type {WeakMap<PageNode, HRV>} */
const lastShown = new WeakMap();

/**
 * @param {Recipe} recipe
 * @returns {{ hrv?: HRV, message: string }} neither as long as it is not known
 */
function hrvOf(recipe) {
  const { answer, error } = known("/hrv/hrv", recipe);
  if (!answer) return { message: error ?? "" };
  const hrv = readAnswers.get(answer) ?? readHRV(answer);
  readAnswers.set(answer, hrv);
  return { hrv, message: "" };
}

/** @type {WeakMap<HRV, WeakMap<HRV, HRV | null>>} */
const differences = new WeakMap();

/**
 * @param {HRV} one
 * @param {HRV} other
 */
function differenceOf(one, other) {
  const ofOne = differences.get(one) ?? new WeakMap();
  differences.set(one, ofOne);
  if (!ofOne.has(other)) ofOne.set(other, difference(one, other));
  return ofOne.get(other) ?? null;
}

/**
 * The heads that the node's control acts on, or else those in the field that clicks go to.
 * @param {PageNode} node
 * @param {Place} place
 * @param {Recipe} recipe
 * @param {HRV} hrv
 * @returns {Set<number>}
 */
function outlinedHeads(node, place, recipe, hrv) {
  const fields = PICKING[String(node.comfyClass)];
  if (fields) {
    const values = Object.fromEntries(fields.map((name) => [name, widgetValue(place, name)]));
    return new Set(known("/hrv/touched", { ...values, hrv: recipe, node: node.comfyClass }).answer?.positions);
  }
  const text = scaleHeadsField(node)?.field.value;
  return new Set(text ? known("/hrv/heads", { layout: hrv.layout, text }).answer?.positions : []);
}

/**
 * The field of Scale Heads that clicks on heads go to: that of the node that is selected, or of the first.
 * @param {PageNode} node
 * @returns {{ target: LGraphNode, field: PageWidget } | null}
 */
function scaleHeadsField(node) {
  const found = node.graph?.nodes.filter(({ type }) => type === SCALE_HEADS) ?? [];
  const target = found.find(({ selected }) => selected) ?? found[0];
  const field = target?.widgets?.find(({ name }) => name === "heads");
  return target && field ? { target, field } : null;
}

/**
 * Add a head to a Scale Heads node, or take it away again; a sentence on what happened.
 * @param {PageNode} node
 * @param {HRV} hrv
 * @param {number} position
 */
async function takeHead(node, hrv, position) {
  const { layer, head } = headName(hrv, position);
  const name = `${layer}:${head}`;
  const found = scaleHeadsField(node);
  if (!found) return say("To scale {head}, add the node Scale Heads to this graph and click again.", { head: name });
  const { target, field } = found;
  const { answer, error } = await ask("/hrv/heads", { layout: hrv.layout, text: field.value, toggle: position });
  if (!answer) return error ?? "";
  field.value = answer.text;
  field.callback?.(answer.text);
  target.setDirtyCanvas(true);
  const values = { head: name, node: target.title, count: answer.positions.length };
  const did = answer.positions.includes(position) ? say("Added {head}.", values) : say("Removed {head}.", values);
  return `${did} ${values.count === 1 ? say("{node} has 1 head.", values) : say("{node} has {count} heads.", values)}`;
}
