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
  const remembered = /** @type {Status[] | undefined} */ (known("/hrv/status", { workflow }).answer?.statuses);
  return later(told.get(keyOf(workflow, node)), remembered?.find((status) => status.node === node));
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
