// The page's own objects as the pack's modules see them.

import { app } from "../../../scripts/app.js";

/** @import { ComfyExtension } from "@comfyorg/comfyui-frontend-types" */
/** @import { Graph, GraphNode, Place } from "./graph.js" */

/** @typedef {Parameters<NonNullable<ComfyExtension["nodeCreated"]>>[0]} LGraphNode */
/** @typedef {NonNullable<LGraphNode["widgets"]>[number]} PageWidget */

/**
 * The page adds this method where the typings don't see it.
 * @typedef {LGraphNode & {
 *   addDOMWidget: (name: string, type: string, element: HTMLElement, options: object) => PageWidget,
 * }} PageNode
 */

/**
 * The page's node as the pure modules read it; the typings of both only differ in what those never touch.
 * @param {PageNode} node
 * @returns {GraphNode}
 */
export function asGraphNode(node) {
  return /** @type {any} */ (node);
}

/**
 * Whether something of the graph is a node of the pack.
 * @param {any} item
 */
export function isOurs(item) {
  return String(item?.comfyClass).startsWith("HRV_");
}

/** @returns {Graph} */
export function rootGraph() {
  return /** @type {any} */ (app.rootGraph ?? app.graph);
}

/**
 * The digest of the HRV that a node gave in its last run.
 * @param {Place} place
 * @returns {string | undefined}
 */
export function lastRun(place) {
  return lastOutput(place)?.hrv?.[0];
}

/**
 * The text that a node encoded in its last run.
 * @param {Place} place
 * @returns {string | undefined}
 */
export function lastText(place) {
  return lastOutput(place)?.hrv_text?.[0];
}

/**
 * What a node told the page in its last run.
 * @param {Place} place
 * @returns {Record<string, any> | undefined}
 */
export function lastOutput({ node }) {
  return /** @type {Record<string, any>} */ (app.nodeOutputs)?.[locatorOf(node)];
}

/**
 * Let a node be as if its last run had told the page this.
 * @param {Place} place
 * @param {any} output
 */
export function setLastOutput({ node }, output) {
  app.nodeOutputs[locatorOf(node)] = output;
  /** @type {any} */ (node).onExecuted?.(output);
}

/**
 * The name under which the host keeps the outputs of a node: "id", or "graph:id" inside a subgraph.
 * @param {GraphNode} node
 */
function locatorOf({ graph, id }) {
  return graph === rootGraph() ? String(id) : `${graph?.id}:${id}`;
}

/**
 * Draw the graph once the elements of new widgets are in the page.
 *
 * The host puts an element at its place at the first drawing after it mounted it, for DomWidget.vue only hears of the
 * place when it changes. A drawing before that, which leaves nothing to draw, may come at any time: an effect of the host
 * that draws the graph (useLitegraphSettings.ts) depends on all widgets from then on and draws again when there is a new
 * one, before DomWidgets.vue mounts it.
 */
export function drawNewElements() {
  // Vue mounts before the next task.
  setTimeout(() => app.canvas.setDirty(true, true));
}
