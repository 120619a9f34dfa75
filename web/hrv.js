// The pack in ComfyUI's page. Everything else is in hrv/: the host imports every .js file at start and keeps none in a
// cache, so files there define things and do nothing when they are imported.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addConceptMenus } from "./hrv/concept_menus.js";
import { forget } from "./hrv/server.js";

// What a run wrote is asked for again.
api.addEventListener("execution_success", forget);

app.registerExtension({
  name: "hrv",
  nodeCreated(node) {
    addConceptMenus(node);
  },
  refreshComboInNodes: forget,
});
