// Where the value of a node's input comes from, as the page resolves it when it queues a prompt.

import { MODES } from "./graph.js";

/** @import { Graph, GraphNode, Link, Place } from "./graph.js" */

/** @typedef {Place & { slot: number }} Source an output that a computing node gives */

const SUBGRAPH_INPUT = "-10"; // the host's id of a subgraph's own inputs, which some versions have as a number

/**
 * All places of a node: one for each use of the subgraph that holds it.
 * @param {Graph} root
 * @param {GraphNode} node
 * @returns {Place[]}
 */
export function placesOf(root, node) {
  return node.graph ? pathsTo(root, node.graph).map((path) => ({ path, node })) : [];
}

/**
 * The nodes of a graph and of all subgraphs in it.
 * @param {Graph} root
 * @returns {GraphNode[]}
 */
export function nodesWithin(root) {
  const graphs = new Set([root]);
  // What is added meanwhile is gone through too.
  for (const { nodes } of graphs) for (const { subgraph } of nodes) if (subgraph) graphs.add(subgraph);
  return [...graphs].flatMap(({ nodes }) => nodes);
}

/**
 * The output that an input of a node in one place takes its value from; null without a link or behind a muted node.
 *
 * Reroutes of both kinds, other virtual nodes, bypassed nodes and subgraphs of any depth are seen through.
 * @param {Place} place
 * @param {string} input
 * @returns {Source | null}
 */
export function sourceOf(place, input) {
  const slot = place.node.inputs.findIndex(({ name }) => name === input);
  return slot < 0 ? null : behindInput(place, slot, new Set());
}

/**
 * The value of a widget as it will be queued, or undefined if a node computes it or there is no such widget.
 * @param {Place} place
 * @param {string} name
 * @returns {unknown}
 */
export function widgetValue({ path, node }, name) {
  const slot = node.inputs.findIndex((input) => (input.widget?.name ?? input.name) === name);
  const link = slot < 0 ? null : linkInto(node, slot);
  if (!link) return node.widgets?.find((widget) => widget.name === name)?.value;
  if (String(link.origin_id) === SUBGRAPH_INPUT) {
    const outer = path.at(-1);
    const outerName = outer?.subgraph?.inputs[link.origin_slot]?.name;
    return outer && outerName !== undefined ? widgetValue({ path: path.slice(0, -1), node: outer }, outerName) : undefined;
  }
  // The host's nodes for one value, whether the page resolves them (PrimitiveNode) or the server (PrimitiveString).
  const origin = node.graph?.getNodeById(link.origin_id);
  const source = origin?.type === "PrimitiveNode" ? origin : behindInput({ path, node }, slot, new Set())?.node;
  return String(source?.type).startsWith("Primitive") ? source?.widgets?.[0]?.value : undefined;
}

/**
 * The node and the name of the widget that a widget's value is set in: of a subgraph's node if it is promoted there,
 * else its own; null if a node computes it.
 * @param {Place} place
 * @param {string} name
 * @returns {{ node: GraphNode, name: string } | null}
 */
export function holderOf({ path, node }, name) {
  const slot = node.inputs.findIndex((input) => (input.widget?.name ?? input.name) === name);
  const link = slot < 0 ? null : linkInto(node, slot);
  if (!link) return { node, name };
  const outer = String(link.origin_id) === SUBGRAPH_INPUT ? path.at(-1) : undefined;
  const outerName = outer?.subgraph?.inputs[link.origin_slot]?.name;
  return outer && outerName !== undefined ? holderOf({ path: path.slice(0, -1), node: outer }, outerName) : null;
}

/**
 * The ways from the root to a graph, each through the nodes of the subgraphs around it; the root's own is empty.
 * @param {Graph} root
 * @param {Graph} graph
 * @returns {GraphNode[][]}
 */
function pathsTo(root, graph) {
  if (root === graph) return [[]];
  return root.nodes.flatMap((node) =>
    node.subgraph ? pathsTo(node.subgraph, graph).map((path) => [node, ...path]) : [],
  );
}

/**
 * @param {Place} place
 * @param {number} slot
 * @param {Set<unknown>} seen links on the way, so that a ring ends
 * @returns {Source | null}
 */
function behindInput({ path, node }, slot, seen) {
  const link = linkInto(node, slot);
  return link && node.graph ? behindLink(path, node.graph, link, seen) : null;
}

/**
 * @param {GraphNode[]} path
 * @param {Graph} graph
 * @param {Link} link
 * @param {Set<unknown>} seen
 * @returns {Source | null}
 */
function behindLink(path, graph, link, seen) {
  if (String(link.origin_id) === SUBGRAPH_INPUT) {
    const outer = path.at(-1);
    const name = outer?.subgraph?.inputs[link.origin_slot]?.name;
    const slot = outer?.inputs.findIndex((input) => input.name === name) ?? -1;
    return outer && slot >= 0 ? behindInput({ path: path.slice(0, -1), node: outer }, slot, seen) : null;
  }
  const key = [...path.map((node) => node.id), link.origin_id, link.origin_slot].join(":");
  const origin = graph.getNodeById(link.origin_id);
  if (!origin || seen.has(key)) return null;
  seen.add(key);
  return behindOutput({ path, node: origin, slot: link.origin_slot }, seen);
}

/**
 * @param {Source} source
 * @param {Set<unknown>} seen
 * @returns {Source | null}
 */
function behindOutput({ path, node, slot }, seen) {
  if (node.mode === MODES.never) return null;
  if (node.mode === MODES.bypass) {
    const input = bypassedInput(node, slot);
    return input < 0 ? null : behindInput({ path, node }, input, seen);
  }
  if (node.subgraph) {
    const id = node.subgraph.outputs[slot]?.linkIds[0];
    const link = id === undefined ? null : node.subgraph.getLink(id);
    return link ? behindLink([...path, node], node.subgraph, link, seen) : null;
  }
  if (!node.isVirtualNode) return { path, node, slot };
  const resolved = node.resolveVirtualOutput?.(slot);
  if (resolved) return behindOutput({ path, ...resolved }, seen);
  // A virtual node of another pack may hand on a link that none of its own inputs has.
  const link = node.getInputLink?.(slot) ?? linkInto(node, slot);
  return link && node.graph ? behindLink(path, node.graph, link, seen) : null;
}

/**
 * The input that a bypassed node hands on to an output: of the same type, best at the same place (the host's rule).
 * @param {GraphNode} node
 * @param {number} slot
 */
function bypassedInput(node, slot) {
  const type = node.outputs[slot]?.type;
  if (type === "*") return node.inputs.length > slot ? slot : 0;
  return node.inputs[slot]?.type === type ? slot : node.inputs.findIndex((input) => input.type === type);
}

/**
 * @param {GraphNode} node
 * @param {number} slot
 * @returns {Link | null}
 */
function linkInto(node, slot) {
  const id = node.inputs[slot]?.link;
  return id === null || id === undefined ? null : (node.graph?.getLink(id) ?? null);
}
