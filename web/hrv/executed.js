// Nodes by the ids that a run has for them: in subgraphs a path such as "4:1".

/** @import { Graph, GraphNode, Place } from "./graph.js" */

/**
 * The node that a run calls ``id``, or null if the graph has none.
 * @param {Graph} root
 * @param {string} id
 * @returns {Place | null}
 */
export function placeOfExecution(root, id) {
  /** @type {GraphNode[]} */
  const path = [];
  /** @type {Graph | undefined} */
  let graph = root;
  const names = id.split(":");
  for (const [depth, name] of names.entries()) {
    /** @type {GraphNode | undefined} */
    const node = graph?.nodes.find((candidate) => String(candidate.id) === name);
    if (!node) return null;
    if (depth === names.length - 1) return { path, node };
    path.push(node);
    graph = node.subgraph;
  }
  return null;
}

/**
 * What a run calls the node of a place.
 * @param {Place} place
 */
export function executionId({ path, node }) {
  return [...path, node].map(({ id }) => id).join(":");
}
