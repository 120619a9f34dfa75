// What the pack's nodes gave in their last runs, put on them again in a page that was opened later.

import { placeOfExecution } from "./executed.js";
import { drawNewElements, isOurs, lastOutput, rootGraph, setLastOutput } from "./page.js";
import { ask } from "./server.js";
import { showTexts } from "./shown_texts.js";

/** Put the results of earlier runs on the nodes of the workflow that was opened, where there are none yet. */
export async function restoreResults() {
  const root = rootGraph();
  const workflow = root.id;
  const { answer } = await ask("/hrv/results", { workflow });
  // Another workflow may have been opened meanwhile.
  if (!answer || rootGraph().id !== workflow) return;
  for (const [id, output] of Object.entries(answer.outputs)) {
    const place = placeOfExecution(root, id);
    if (place && isOurs(place.node) && !lastOutput(place)) setLastOutput(place, output);
  }
  showTexts(answer.texts);
  drawNewElements();
}
