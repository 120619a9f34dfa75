// The part of the page's graph (LiteGraph's LGraph, LGraphNode, LLink, SubgraphNode) that the pack reads.

/** @typedef {string | number} Id */

/** @typedef {{ origin_id: Id, origin_slot: number }} Link */

/**
 * @typedef {object} Input
 * @property {string} name
 * @property {unknown} type
 * @property {Id | null} [link]
 * @property {{ name: string }} [widget] the widget whose value a link replaces
 */

/** @typedef {{ name: string, value?: unknown }} Widget */

/**
 * @typedef {object} GraphNode
 * @property {Id} id
 * @property {unknown} [type]
 * @property {number} [mode] one of the MODES
 * @property {Input[]} inputs
 * @property {{ name: string, type: unknown }[]} outputs
 * @property {Widget[]} [widgets]
 * @property {Graph | null} [graph]
 * @property {Subgraph} [subgraph] what a subgraph's node holds
 * @property {boolean} [isVirtualNode] whether the page resolves it and the server never sees it
 * @property {(slot: number) => Link | null | undefined} [getInputLink]
 * @property {(slot: number) => { node: GraphNode, slot: number } | undefined} [resolveVirtualOutput]
 */

/**
 * @typedef {object} Graph
 * @property {string} id
 * @property {GraphNode[]} nodes
 * @property {(id: any) => GraphNode | null | undefined} getNodeById
 * @property {(id: any) => Link | null | undefined} getLink
 */

/**
 * @typedef {Graph & { inputs: { name: string }[], outputs: { name: string, linkIds: Id[] }[] }} Subgraph
 */

/** A node with the subgraphs' nodes around it, the outermost first.
 * @typedef {{ path: GraphNode[], node: GraphNode }} Place
 */

/** How a node takes part in a run, by LiteGraph's numbers. */
export const MODES = { never: 2, bypass: 4 };
