// The pack in ComfyUI's page. Everything else is in hrv/: the host imports every .js file at start and keeps none in a
// cache, so files there define things and do nothing when they are imported.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addConceptMenus } from "./hrv/concept_menus.js";
import { setFirstValues } from "./hrv/first_values.js";
import { HEADS } from "./hrv/heat_maps.js";
import { loadTranslations, translateSearch } from "./hrv/languages.js";
import { addOuterStatus } from "./hrv/outer_status.js";
import { addPanel, isOpen, setOpen } from "./hrv/panels.js";
import { restoreResults } from "./hrv/results.js";
import { colorSockets } from "./hrv/socket_colors.js";
import { forget } from "./hrv/server.js";
import { PROGRESS } from "./hrv/status_panel.js";
import { askAgain, hear } from "./hrv/statuses.js";
import { hearExecuting, hearText } from "./hrv/shown_texts.js";
import { sortTemplates } from "./hrv/templates.js";
import { say } from "./hrv/texts.js";
import { WORDS } from "./hrv/word_chips.js";
import { addWordMenu } from "./hrv/word_menus.js";

/** @import { PageNode } from "./hrv/page.js" */
/** @import { Panel } from "./hrv/panels.js" */
/** @import { Status } from "./hrv/status.js" */

const TOGGLES = [
  { id: "hrv.ToggleProgress", label: "Show or hide the progress of a node", icon: "pi pi-chart-line", panel: PROGRESS },
  { id: "hrv.ToggleHeads", label: "Show or hide the heads of an HRV", icon: "pi pi-th-large", panel: HEADS },
  { id: "hrv.ToggleWords", label: "Show or hide the words of a prompt", icon: "pi pi-align-left", panel: WORDS },
];

// What a run wrote is asked for again.
api.addEventListener("execution_success", forget);
api.addEventListener("reconnected", askAgain);
api.addEventListener("executing", ({ detail }) => hearExecuting(detail === null ? null : String(detail)));
api.addEventListener("progress_text", ({ detail }) => hearText(String(detail.nodeId)));
// Here and not in setup(): messages that come before it would be lost.
api.addEventListener(/** @type {any} */ ("hrv.status"), (/** @type {CustomEvent<Status>} */ { detail }) => hear(detail));

/** @param {Panel} panel */
function toggleSelected(panel) {
  const nodes = /** @type {PageNode[]} */ (Object.values(app.canvas.selected_nodes)).filter(panel.isFor);
  const open = !nodes.every((node) => isOpen(node, panel));
  for (const node of nodes) setOpen(node, panel, open);
}

app.registerExtension({
  name: "hrv",
  commands: TOGGLES.map(({ panel, ...command }) => ({ ...command, function: () => toggleSelected(panel) })),
  init: loadTranslations,
  addCustomNodeDefs: translateSearch,
  setup() {
    colorSockets();
    sortTemplates();
    // Texts are shown on nodes of the graph that is open.
    app.canvas.canvas.addEventListener("litegraph:set-graph", () => void restoreResults());
  },
  nodeCreated(created) {
    const node = /** @type {PageNode} */ (created);
    setFirstValues(node);
    addConceptMenus(node);
    addWordMenu(node);
    addOuterStatus(node);
    for (const { panel } of TOGGLES) addPanel(node, panel);
  },
  getSelectionToolboxCommands: (item) =>
    TOGGLES.filter(({ panel }) => panel.isFor(/** @type {any} */ (item))).map(({ id }) => id),
  getNodeMenuItems(clicked) {
    const node = /** @type {PageNode} */ (clicked);
    return TOGGLES.filter(({ panel }) => panel.isFor(node)).map(({ panel }) => {
      const open = isOpen(node, panel);
      const what = { panel: say(panel.title) };
      return { content: open ? say("Hide {panel}", what) : say("Show {panel}", what), callback: () => setOpen(node, panel, !open) };
    });
  },
  afterConfigureGraph: () => void restoreResults(),
  refreshComboInNodes: async (/** @type {Record<string, any>} */ definitions) => {
    forget();
    // The page also comes here when its language has changed.
    await loadTranslations();
    translateSearch(definitions);
  },
});
