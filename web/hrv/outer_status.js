// How far long work inside a subgraph is, above the subgraph's own node.

import { app } from "../../../scripts/app.js";
import { executionId } from "./executed.js";
import { asGraphNode, rootGraph } from "./page.js";
import { placesOf } from "./sources.js";
import { describeStatus, later } from "./status.js";
import { statusInside } from "./statuses.js";
import { addStyle } from "./styles.js";
import { watch } from "./watch.js";

/** @import { PageNode } from "./page.js" */

const STYLE = `
.hrv-outer-status { position: absolute; right: 0; bottom: calc(100% + 4px); padding: 2px 6px; border-radius: 5px; font: 12px sans-serif;
  white-space: nowrap; color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222); pointer-events: none; }
`;

/**
 * Let the node of a subgraph say how far the work inside it is, until it is done.
 * @param {PageNode} node
 */
export function addOuterStatus(node) {
  if (!asGraphNode(node).subgraph) return;
  let text = "";
  const badge = () => new LGraphBadge({ text: LiteGraph.vueNodesMode ? "" : text });
  const label = document.createElement("div");
  label.className = "hrv-outer-status";
  label.setAttribute("role", "status");
  const removed = node.onRemoved;
  node.onRemoved = function () {
    label.remove();
    removed?.call(this);
  };
  watch(node, () => {
    const before = text;
    text = textOf(node);
    if (text !== before) node.setDirtyCanvas(true);
    if (text && !node.badges.includes(/** @type {any} */ (badge))) node.badges.push(/** @type {any} */ (badge));
    showLabel(node, label, text);
  });
}

/** @param {PageNode} node */
function textOf(node) {
  const status = placesOf(rootGraph(), asGraphNode(node))
    .map((place) => statusInside(executionId(place)))
    .reduce((one, other) => later(one, other), undefined);
  return status && status.state !== "done" ? describeStatus(status) : "";
}

/**
 * Nodes 2.0 reads the badges of a node only once, so that it has an element instead.
 * @param {PageNode} node
 * @param {HTMLElement} label
 * @param {string} text
 */
function showLabel(node, label, text) {
  const element = text && LiteGraph.vueNodesMode ? document.querySelector(`[data-node-id="${CSS.escape(String(node.id))}"]`) : null;
  if (!element || node.graph !== app.canvas.graph) {
    label.remove();
    return;
  }
  addStyle("hrv-outer-status-style", STYLE);
  if (label.textContent !== text) label.textContent = text;
  if (label.parentElement !== element) element.append(label);
}
