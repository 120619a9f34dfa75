// The pack in ComfyUI's page. Everything else is in hrv/: the host imports every .js file at start and keeps none in a
// cache, so files there define things and do nothing when they are imported.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addConceptMenus } from "./hrv/concept_menus.js";
import { addHeatMap, hasHeads, headsAreOpen, setHeads } from "./hrv/heat_maps.js";
import { forget } from "./hrv/server.js";
import { addWordMenu } from "./hrv/word_menus.js";

/** @import { PageNode } from "./hrv/page.js" */

const TOGGLE_HEADS = "hrv.ToggleHeads";

// What a run wrote is asked for again.
api.addEventListener("execution_success", forget);

/** @param {any} item */
function canShowHeads(item) {
  return String(item?.comfyClass).startsWith("HRV_") && hasHeads(item);
}

app.registerExtension({
  name: "hrv",
  commands: [
    {
      id: TOGGLE_HEADS,
      label: "Show or hide the heads of an HRV",
      icon: "pi pi-th-large",
      function: () => {
        const nodes = /** @type {PageNode[]} */ (Object.values(app.canvas.selected_nodes).filter(canShowHeads));
        const open = !nodes.every(headsAreOpen);
        for (const node of nodes) setHeads(node, open);
      },
    },
  ],
  nodeCreated(created) {
    const node = /** @type {PageNode} */ (created);
    addConceptMenus(node);
    addWordMenu(node);
    addHeatMap(node);
  },
  getSelectionToolboxCommands: (item) => (canShowHeads(item) ? [TOGGLE_HEADS] : []),
  getNodeMenuItems(clicked) {
    const node = /** @type {PageNode} */ (clicked);
    if (!canShowHeads(node)) return [];
    const open = headsAreOpen(node);
    return [{ content: open ? "Hide heads" : "Show heads", callback: () => setHeads(node, !open) }];
  },
  refreshComboInNodes: forget,
});
