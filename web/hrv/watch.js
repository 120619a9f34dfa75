// Keeps what nodes show up to date with the graph.
//
// What a node shows may depend on any node before it, on subgraphs around it and on replies of the server, and the page
// has no one event for all that can change. So everything that is watched is looked at a few times a second.

import { app } from "../../../scripts/app.js";

/** @import { PageNode } from "./page.js" */

const PERIOD_MS = 250;

/** @typedef {{ node: PageNode, look: () => void }} Watched */

/** @type {Set<Watched>} */
const watched = new Set();

/** @type {ReturnType<typeof setInterval> | undefined} */
let timer;

/**
 * Call ``look`` now and then for as long as the node is in a graph, hidden or not; it has to be cheap.
 * @param {PageNode} node
 * @param {() => void} look
 */
export function watch(node, look) {
  const entry = { node, look };
  watched.add(entry);
  const removed = node.onRemoved;
  node.onRemoved = function () {
    watched.delete(entry);
    removed?.call(this);
  };
  timer ??= setInterval(lookAtAll, PERIOD_MS);
}

function lookAtAll() {
  if (document.hidden || app.configuringGraph) return;
  for (const { node, look } of watched) {
    if (node.graph) look();
  }
}
