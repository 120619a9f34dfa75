// The last status of each node: what the server told this page, and what it remembers of earlier pages.

import { executionId } from "./executed.js";
import { lastRun, rootGraph } from "./page.js";
import { forget, known } from "./server.js";
import { later } from "./status.js";

/** @import { Place } from "./graph.js" */
/** @import { Status } from "./status.js" */

/** @type {Map<string, Status>} */
const told = new Map();

/**
 * @param {string} workflow
 * @param {string} node
 */
const keyOf = (workflow, node) => `${workflow} ${node}`;

/**
 * Take a message of the server.
 * @param {Status} status
 */
export function hear(status) {
  told.set(keyOf(status.workflow, status.node), status);
}

/** After a break nothing that was told before need be so any more. */
export function askAgain() {
  told.clear();
  forget();
}

/**
 * How the work of a node stands, if it did any.
 * @param {Place} place
 * @returns {Status | undefined}
 */
export function statusOf(place) {
  const workflow = rootGraph().id;
  const node = executionId(place);
  return later(told.get(keyOf(workflow, node)), remembered(workflow).find((status) => status.node === node));
}

/**
 * How the last work inside a subgraph stands, if there was any.
 * @param {string} subgraph what a run calls its node
 * @returns {Status | undefined}
 */
export function statusInside(subgraph) {
  const workflow = rootGraph().id;
  const heard = [...told.values()].filter((status) => status.workflow === workflow);
  return [...heard, ...remembered(workflow)]
    .filter(({ node }) => node.startsWith(`${subgraph}:`))
    .reduce((/** @type {Status | undefined} */ one, other) => later(one, other), undefined);
}

/**
 * What the server remembers of a workflow's nodes.
 * @param {string} workflow
 * @returns {Status[]}
 */
function remembered(workflow) {
  return known("/hrv/status", { workflow }).answer?.statuses ?? [];
}

/**
 * The digest of the HRV that a node gave in its last run, or has so far.
 * @param {Place} place
 * @returns {string | undefined}
 */
export function lastHRV(place) {
  const status = statusOf(place);
  const soFar = status?.hrv ?? undefined;
  return status?.state === "done" ? (lastRun(place) ?? soFar) : (soFar ?? lastRun(place));
}
