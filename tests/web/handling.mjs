// What people do with nodes: copy, undo, bypass, put into a subgraph. Values and panels stay with them.

import { offered, queued } from "./concept_menus.mjs";

const CONTROL = "HRV_ConceptStrengthen";
const ENCODER = "HRV_TextEncode";

export async function handling(tools) {
  const seen = {};
  for (const renderer of ["classic", "nodes2"]) {
    await tools.setting("Comfy.VueNodes.Enabled", renderer === "nodes2");
    seen[renderer] = { ...(await copies(tools, renderer)), ...(await inSubgraph(tools, renderer)) };
  }
  await tools.setting("Comfy.VueNodes.Enabled", false);
  return seen;
}

/** A control with its map open: copied and pasted, undone, bypassed and back. */
async function copies({ page, load, command, screenshot, workflow }, renderer) {
  await load(`handling-${renderer}`, workflow);
  await select(page, CONTROL);
  await command("hrv.ToggleHeads");
  await maps(page, 1);
  const before = await state(page);
  await page.evaluate(() => app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState());
  await page.evaluate(() => app.canvas.canvas.focus());
  await page.mouse.move(300, 200); // where the copy is put
  await page.keyboard.press("Control+c");
  await page.keyboard.press("Control+v");
  await maps(page, 2);
  const pasted = await state(page);
  await screenshot(`handling-${renderer}-pasted`);
  await command("Comfy.Undo");
  await maps(page, 1);
  const undone = await state(page);
  await command("Comfy.Redo");
  await maps(page, 2);
  const redone = await state(page);
  await command("Comfy.Undo");
  await maps(page, 1);
  await select(page, CONTROL);
  await command("Comfy.Canvas.ToggleSelectedNodes.Bypass");
  const bypassed = await page.evaluate(async () => Object.values((await app.graphToPrompt()).output).map((node) => node.class_type));
  const whileBypassed = await state(page);
  await command("Comfy.Canvas.ToggleSelectedNodes.Bypass");
  return { before, pasted, undone, redone, bypassed: bypassed.includes(CONTROL), whileBypassed, after: await state(page) };
}

/** A selected control becomes a subgraph; its menus know what is outside, and clicks on words outside reach it. */
async function inSubgraph({ page, load, command, screenshot, workflow }, renderer) {
  await load(`subgraph-${renderer}`, workflow);
  const sizes = await page.evaluate((type) => [...app.rootGraph.nodes.find((node) => node.type === type).size], CONTROL);
  await page.evaluate((encoder) => {
    const node = app.rootGraph.nodes.find(({ type }) => type === encoder);
    node.widgets.find(({ name }) => name === "text").value = "a red square";
  }, ENCODER);
  await select(page, ENCODER);
  await command("hrv.ToggleWords");
  await select(page, CONTROL);
  await command("Comfy.Graph.ConvertToSubgraph");
  await page.waitForFunction(() => app.rootGraph.nodes.some((node) => node.subgraph));
  const concepts = await offered(page, CONTROL, "concept", "Plants");
  await page.evaluate((type) => {
    const inner = app.rootGraph.nodes.find((node) => node.subgraph).subgraph.nodes.find((node) => node.type === type);
    inner.widgets.find(({ name }) => name === "words").value = "";
  }, CONTROL);
  const words = await offered(page, CONTROL, "words", "square");
  await page.locator(".hrv-words-chip", { hasText: "square" }).click();
  const chips = await page.locator(".hrv-words-chip[aria-pressed=true]").allTextContents();
  await screenshot(`handling-${renderer}-subgraph`);
  const inner = await page.evaluate((type) => {
    const node = app.rootGraph.nodes.find(({ subgraph }) => subgraph).subgraph.nodes.find((candidate) => candidate.type === type);
    return [...node.size];
  }, CONTROL);
  return { concepts, words, chips, clicked: await queued(page, CONTROL, "words"), kept: JSON.stringify(inner) === JSON.stringify(sizes) };
}

function select(page, type) {
  return page.evaluate((type) => app.canvas.selectItems([app.rootGraph.nodes.find((node) => node.type === type)]), type);
}

/** Until so many maps are in the page, and no more. */
function maps(page, count) {
  return page.waitForFunction((count) => document.querySelectorAll(".hrv-heads").length === count, count);
}

/** The values and sizes of all controls, and whether their panels are open. */
function state(page) {
  return page.evaluate(
    (type) =>
      app.rootGraph.nodes
        .filter((node) => node.type === type)
        .map((node) => ({
          values: app.rootGraph.serialize().nodes.find(({ id }) => String(id) === String(node.id)).widgets_values,
          size: [...node.size].map(Math.round),
          open: node.properties["hrv.heads"]?.open ?? false,
          maps: node.widgets.filter(({ name }) => name === "hrv.heads").length,
        })),
    CONTROL,
  );
}
