// How far long work on a node is: a sentence, a bar, and curves as they fill.

import { CurvesView } from "./curves_view.js";
import { asGraphNode, isOurs, rootGraph } from "./page.js";
import { placesOf } from "./sources.js";
import { describeStatus, later } from "./status.js";
import { statusOf } from "./statuses.js";
import { addStyle } from "./styles.js";
import { say } from "./texts.js";

/** @import { PageNode } from "./page.js" */
/** @import { Panel } from "./panels.js" */
/** @import { Status } from "./status.js" */

const STYLE = `
.hrv-status { display: flex; flex-direction: column; gap: 4px; width: 100%; height: 100%; min-height: 0; box-sizing: border-box;
  font: 12px sans-serif; color: var(--input-text, #ddd); overflow: hidden; }
.hrv-status progress { flex: none; width: 100%; height: 8px; accent-color: var(--p-primary-color, #4a9); }
.hrv-status-says { flex: none; line-height: 16px; }
.hrv-status[data-state=cancelled] .hrv-status-says, .hrv-status[data-state=failed] .hrv-status-says,
.hrv-status[data-state=interrupted] .hrv-status-says { color: var(--p-yellow-400, #e5b454); }
.hrv-status .hrv-curves { flex: 1 1 0; min-height: 0; }
`;

const WORKING = [
  "HRV_Build",
  "HRV_BuildCausal",
  "HRV_OrderedWeakening",
  "HRV_WeakeningSummary",
  "HRV_QuickCheck",
  "HRV_FactorSweep",
  "HRV_SideEffects",
  "HRV_AttendAndExcite",
];

/** @type {Panel} */
export const PROGRESS = {
  name: "hrv.progress",
  title: "progress",
  width: 300,
  height: 190,
  minHeight: 130,
  openWhenNew: new Set(WORKING),
  isFor: (node) => isOurs(node) && WORKING.includes(String(node.comfyClass)),
  make: (node) => {
    addStyle("hrv-status-style", STYLE);
    const element = document.createElement("div");
    element.className = "hrv-status";
    const bar = document.createElement("progress");
    bar.setAttribute("aria-label", say("Progress"));
    const says = document.createElement("div");
    says.className = "hrv-status-says";
    says.setAttribute("role", "status");
    const view = new CurvesView();
    element.append(bar, says, view.element);
    /** @type {Status | null | undefined} */
    let shown = null;
    return {
      element,
      update: () => {
        const status = statusAt(node);
        view.update(status?.curves ?? null);
        if (status === shown) return;
        shown = status;
        element.dataset.state = status?.state ?? "";
        bar.max = status?.total || 1;
        bar.value = status?.done ?? 0;
        says.textContent = status ? describeStatus(status) : say("Not run yet.");
      },
      remove: () => {
        view.remove();
        element.remove();
      },
    };
  },
};

/**
 * The last status of a node in any of its places.
 * @param {PageNode} node
 */
function statusAt(node) {
  return placesOf(rootGraph(), asGraphNode(node))
    .map(statusOf)
    .reduce((one, other) => later(one, other), undefined);
}
