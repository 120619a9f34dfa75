// Texts that nodes show on themselves (host/page/texts.py): those of earlier runs again, and none that a later run of its
// node did not say.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { placeOfExecution } from "./executed.js";
import { isOurs, rootGraph } from "./page.js";

/** @import { GraphNode } from "./graph.js" */
/** @import { PageNode } from "./page.js" */

const WIDGET = "$$node-text-preview"; // the host's, on any node
const SAID_ON_OTHERS = "HRV: ";

/**
 * Show texts of earlier runs on the nodes of the graph that is open, where there are none yet.
 * @param {Record<string, string>} texts by what a run calls the node
 */
export function showTexts(texts) {
  for (const [id, text] of Object.entries(texts)) {
    const node = placeOfExecution(rootGraph(), id)?.node;
    if (!node || /** @type {unknown} */ (node.graph) !== app.canvas.graph || textWidget(node)) continue;
    api.dispatchCustomEvent("progress_text", /** @type {any} */ ({ nodeId: id, text }));
  }
}

/** @type {string | null} */
let running = null;
let hasSaid = false;

/**
 * A node begins to run, or none does any more.
 * @param {string | null} id
 */
export function hearExecuting(id) {
  if (id === running) return;
  if (running !== null && !hasSaid) removeText(running);
  running = id;
  hasSaid = false;
}

/**
 * A node says something.
 * @param {string} id
 */
export function hearText(id) {
  if (id === running) hasSaid = true;
}

/** @param {string} id */
function removeText(id) {
  const node = /** @type {PageNode | undefined} */ (/** @type {unknown} */ (placeOfExecution(rootGraph(), id)?.node));
  const widget = node && textWidget(node);
  if (!widget || !(isOurs(node) || String(widget.value).startsWith(SAID_ON_OTHERS))) return;
  node.removeWidget(/** @type {any} */ (widget));
  node.setDirtyCanvas(true);
}

/** @param {GraphNode | PageNode} node */
function textWidget(node) {
  return node.widgets?.find(({ name }) => name === WIDGET);
}
