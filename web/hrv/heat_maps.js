// Heat maps on the nodes that give or take an HRV.

import { app } from "../../../scripts/app.js";
import { difference, headName, readHRV } from "./heads.js";
import { HeatMapView } from "./heat_map_view.js";
import { asGraphNode, lastRun, rootGraph } from "./page.js";
import { recipeOf, recipeOfInput } from "./recipes.js";
import { ask, known } from "./server.js";
import { placesOf, widgetValue } from "./sources.js";
import { watch } from "./watch.js";

/** @import { Place } from "./graph.js" */
/** @import { HRV } from "./heads.js" */
/** @import { Shown, State } from "./heat_map_view.js" */
/** @import { LGraphNode, PageNode, PageWidget } from "./page.js" */
/** @import { Recipe } from "./recipes.js" */

/** @typedef {State & { open: boolean, closedHeight?: number }} Kept */

const PROPERTY = "hrv.heads"; // of a node whose map was ever opened; no other node is changed in a workflow
const WIDGET = "hrv.heads"; // a name that no input has
const HEIGHT = 260;
const WIDTH = 320;
// A new node of these opens its map, as Load Image shows its image.
const OPEN_WHEN_NEW = new Set(["HRV_Load", "HRV_Published"]);
// What decides which heads a control acts on, by node class.
const PICKING = /** @type {Record<string, string[]>} */ ({
  HRV_WeakenHeads: ["concept", "order", "heads", "unit", "seed"],
  HRV_ReadByConcept: ["concept", "heads"],
});
const CONCEPT_FIELDS = ["concept", "desired"];
const SCALE_HEADS = "HRV_ScaleHeads";

/** @type {WeakMap<PageNode, HeatMapView>} */
const views = new WeakMap();
/** @type {WeakMap<object, HRV>} */
const readAnswers = new WeakMap();

/** @param {PageNode} node */
export function hasHeads(node) {
  return givesHRV(node) || node.inputs?.some(({ name, type }) => name === "hrv" && type === "HRV");
}

/** @param {PageNode} node */
function givesHRV(node) {
  return node.outputs?.some(({ type }) => type === "HRV");
}

/**
 * Give a new node its heat map, closed unless its workflow has it open.
 * @param {PageNode} node
 */
export function addHeatMap(node) {
  if (!String(node.comfyClass).startsWith("HRV_") || !hasHeads(node)) return;
  let isNew = true;
  const configured = node.onConfigure;
  node.onConfigure = function (info) {
    isNew = false;
    configured?.call(this, info);
  };
  watch(node, () => {
    if (isNew && OPEN_WHEN_NEW.has(String(node.comfyClass)) && !kept(node)) setHeads(node, true);
    isNew = false;
    if (kept(node)?.open) show(node);
    else hide(node);
  });
}

/**
 * @param {PageNode} node
 * @returns {Kept | undefined}
 */
function kept(node) {
  return /** @type {any} */ (node.properties)[PROPERTY];
}

/** @param {PageNode} node */
export function headsAreOpen(node) {
  return Boolean(kept(node)?.open);
}

/**
 * Open or close a node's heat map; the node grows and shrinks by it.
 * @param {PageNode} node
 * @param {boolean} open
 */
export function setHeads(node, open) {
  if (headsAreOpen(node) === open) return;
  const [width, height] = node.size;
  const state = { ...kept(node), open };
  if (open) state.closedHeight = height;
  node.properties[PROPERTY] = /** @type {any} */ (state);
  if (open) {
    show(node);
    node.setSize([Math.max(width, WIDTH), height + HEIGHT]);
  } else {
    hide(node);
    node.setSize([width, state.closedHeight ?? height]);
  }
  node.setDirtyCanvas(true, true);
}

/** @param {PageNode} node */
function show(node) {
  const view = views.get(node) ?? opened(node);
  const { open: _, closedHeight: __, ...state } = kept(node) ?? { open: true };
  view.update(shownBy(node), state);
}

/** @param {PageNode} node */
function hide(node) {
  const view = views.get(node);
  if (!view) return;
  views.delete(node);
  view.remove();
  const widget = node.widgets?.find(({ name }) => name === WIDGET);
  if (widget) node.removeWidget(widget);
}

/** @param {PageNode} node */
function opened(node) {
  const view = new HeatMapView({
    onState: (state) => {
      node.properties[PROPERTY] = /** @type {any} */ ({ ...kept(node), ...state });
      node.graph?.change();
    },
    onHead: (hrv, position) => takeHead(node, hrv, position),
  });
  views.set(node, view);
  const widget = node.addDOMWidget(WIDGET, "HRV_HEADS", view.element, {
    serialize: false,
    hideInPanel: true,
    getMinHeight: () => 160,
  });
  widget.serialize = false;
  view.element.addEventListener("wheel", zoomGraph, { passive: false });
  const removed = node.onRemoved;
  node.onRemoved = function () {
    view.remove();
    removed?.call(this);
  };
  return view;
}

/**
 * Over an element the classic canvas does not hear the wheel; Nodes 2.0 does.
 * @param {WheelEvent} event
 */
function zoomGraph(event) {
  if (LiteGraph.vueNodesMode) return;
  event.preventDefault();
  event.stopPropagation();
  app.canvas.canvas.dispatchEvent(new WheelEvent(event.type, event));
}

/**
 * What a node's map shows now.
 * @param {PageNode} node
 * @returns {Shown}
 */
function shownBy(node) {
  const place = placesOf(rootGraph(), asGraphNode(node))[0];
  const want = { values: true, lastRun };
  /** @type {Shown} */
  const shown = { hrvs: new Map(), message: "", concept: null, outlined: new Set() };
  if (!place) return shown;
  const recipe = givesHRV(node) ? recipeOf(place, want) : recipeOfInput(place, "hrv", want);
  if (!recipe) {
    shown.message = givesHRV(node) ? "Its heads are known after a run." : "Connect an HRV, or run the nodes before this one.";
    return shown;
  }
  const { hrv, message } = hrvOf(recipe);
  shown.message = message;
  if (!hrv) return shown;
  shown.hrvs.set("hrv", { hrv, isDifference: false });
  const otherRecipe = recipeOfInput(place, "other", want);
  const other = otherRecipe && hrvOf(otherRecipe).hrv;
  if (other) {
    shown.hrvs.set("other", { hrv: other, isDifference: false });
    const less = differenceOf(hrv, other);
    if (less) shown.hrvs.set("hrv − other", { hrv: less, isDifference: true });
  }
  const field = CONCEPT_FIELDS.map((name) => widgetValue(place, name)).find((value) => typeof value === "string");
  shown.concept = typeof field === "string" ? field : null;
  shown.outlined = outlinedHeads(node, place, recipe, hrv);
  return shown;
}

/**
 * @param {Recipe} recipe
 * @returns {{ hrv: HRV | null, message: string }}
 */
function hrvOf(recipe) {
  const { answer, error } = known("/hrv/hrv", recipe);
  if (!answer) return { hrv: null, message: error ?? "…" };
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
  if (!found) return `To scale ${name}, add the node Scale Heads to this graph and click again.`;
  const { target, field } = found;
  const { answer, error } = await ask("/hrv/heads", { layout: hrv.layout, text: field.value, toggle: position });
  if (!answer) return error ?? "";
  field.value = answer.text;
  field.callback?.(answer.text);
  target.setDirtyCanvas(true);
  const [did, count] = [answer.positions.includes(position) ? "Added" : "Removed", answer.positions.length];
  return `${did} ${name}: ${target.title} has ${count === 1 ? "1 head" : `${count} heads`}.`;
}
