// From an empty canvas to a steered image as people get there: nodes by search, wires by dragging, words by chips, the
// concept by its menu.

import { choose, offered, queued } from "./concept_menus.mjs";

const CONTROL = "HRV_ConceptStrengthen";
const RUN_MS = 120_000;

/** What is typed for each node, its title, and where it is put on the screen. */
const NODES = {
  mini: ["load hrv-mini", "Load HRV-mini", [180, 170]],
  hrv: ["load hrv", "Load HRV", [200, 340]],
  prompt: ["clip text encode (hrv)", "CLIP Text Encode (HRV)", [480, 170]],
  negative: ["clip text encode (hrv)", "CLIP Text Encode (HRV)", [480, 560]],
  control: ["concept strengthening", "Apply Concept Strengthen", [790, 170]],
  latent: ["empty latent image", "Empty Latent Image", [790, 640]],
  sampler: ["ksampler", "KSampler", [1060, 170]],
  decode: ["vae decode", "VAE Decode", [1280, 170]],
  preview: ["preview image", "Preview Image", [1500, 170]],
};

/** Outputs by number, inputs by name. */
const WIRES = [
  ["mini", 0, "control", "model"],
  ["mini", 1, "prompt", "clip"],
  ["mini", 1, "negative", "clip"],
  ["mini", 2, "decode", "vae"],
  ["hrv", 0, "control", "hrv"],
  ["prompt", 0, "control", "conditioning"],
  ["control", 0, "sampler", "model"],
  ["control", 1, "sampler", "positive"],
  ["negative", 0, "sampler", "negative"],
  ["latent", 0, "sampler", "latent_image"],
  ["sampler", 0, "decode", "samples"],
  ["decode", 0, "preview", "images"],
];

export async function journey(tools) {
  const seen = {};
  for (const renderer of ["classic", "nodes2"]) {
    await tools.setting("Comfy.VueNodes.Enabled", renderer === "nodes2");
    seen[renderer] = await walk(tools, renderer);
  }
  await tools.setting("Comfy.VueNodes.Enabled", false);
  return seen;
}

async function walk({ page, command, screenshot, run }, renderer) {
  await command("Comfy.NewBlankWorkflow");
  await page.waitForFunction(() => app.rootGraph.nodes.length === 0);
  await page.evaluate(() => {
    Object.assign(app.canvas.ds, { scale: 0.6, offset: [0, 0] });
    app.canvas.setDirty(true, true);
  });
  const ids = {};
  for (const [name, [words, title, place]] of Object.entries(NODES)) ids[name] = await found(page, words, title, place);
  for (const [from, slot, to, input] of WIRES) await wired(page, renderer, [ids[from], slot], [ids[to], input]);

  const text = renderer === "nodes2" ? page.locator(`[data-node-id="${ids.prompt}"] textarea`) : page.locator("textarea:visible").first();
  await text.fill("a small red square on the left");
  await page.locator(".hrv-words-chip").nth(6).waitFor();
  await page.evaluate((id) => app.rootGraph.getNodeById(id).widgets[0].value, ids.prompt);
  for (const word of ["red", "square"]) await page.locator(".hrv-words-chip", { hasText: word }).click();
  await offered(page, CONTROL, "concept", "Color");
  await choose(page, renderer, CONTROL, "concept", "Col", "Color");
  const steered = { concept: await queued(page, CONTROL), words: await queued(page, CONTROL, "words") };
  await set(page, ids.latent, { width: 128, height: 128 });
  await set(page, ids.sampler, { seed: 7, control_after_generate: "fixed", steps: 3, cfg: 4 });

  const pictures = {};
  for (const [name, values] of Object.entries({ plain: { strength: 0 }, steered: { strength: 2 }, wordless: { words: "" } })) {
    await set(page, ids.control, values);
    const { end, message } = await run();
    if (end !== "execution_success") return { end, message };
    pictures[name] = await picture(page, ids.preview);
    if (name === "steered") await screenshot(`journey-${renderer}`);
  }
  const distance = (one, other) => one.reduce((sum, value, place) => sum + Math.abs(value - other[place]), 0) / one.length;
  return {
    ...steered,
    wires: await page.evaluate(() => app.rootGraph.links.size),
    changed: distance(pictures.plain, pictures.steered),
    withoutWords: distance(pictures.plain, pictures.wordless),
    pixels: pictures.plain.length,
  };
}

/** Open the search by a double click, type, take the first that is found, and put it there; its id. */
async function found(page, words, title, [x, y]) {
  const dialog = page.getByRole("dialog");
  // A busy page may hear two clicks that are too far apart.
  for (let tries = 0; tries < 10 && !(await dialog.isVisible()); tries++) {
    await page.mouse.dblclick(x, y);
    await dialog.waitFor({ timeout: 3000 }).catch(() => {});
  }
  await dialog.locator("input").first().fill(words);
  const first = dialog.getByTestId("result-item").first();
  await first.filter({ hasText: title }).waitFor();
  await page.keyboard.press("Enter");
  await dialog.waitFor({ state: "hidden" });
  const id = await page.waitForFunction(() => app.canvas.state.ghostNodeId ?? false);
  await page.mouse.click(x, y);
  await page.waitForFunction(() => app.canvas.state.ghostNodeId === null);
  return id.jsonValue();
}

/** Drag a wire from an output to an input. */
async function wired(page, renderer, output, input) {
  const [from, to] = [await slot(page, renderer, output, false), await slot(page, renderer, input, true)];
  await page.mouse.move(...from);
  await page.mouse.down();
  await page.mouse.move(...to, { steps: 4 });
  await page.mouse.up();
  await page.waitForFunction(
    ([id, name]) => app.rootGraph.getNodeById(id).inputs.find((candidate) => candidate.name === name).link !== null,
    input,
  );
}

/** Where a slot is on the screen. */
function slot(page, renderer, [id, slot], isInput) {
  return page.evaluate(
    ([isVue, id, slot, isInput]) => {
      const node = app.rootGraph.getNodeById(id);
      const index = isInput ? node.inputs.findIndex(({ name }) => name === slot) : slot;
      if (isVue) {
        const element = document.querySelector(`[data-slot-key="${id}-${isInput ? "in" : "out"}-${index}"]`);
        const { left, right, top, bottom } = element.getBoundingClientRect();
        return [(left + right) / 2, (top + bottom) / 2];
      }
      const [x, y] = app.canvas.ds.convertOffsetToCanvas(isInput ? node.getInputPos(index) : node.getOutputPos(index));
      const { left, top } = app.canvas.canvas.getBoundingClientRect();
      return [left + x, top + y];
    },
    [renderer === "nodes2", id, slot, isInput],
  );
}

function set(page, id, values) {
  return page.evaluate(
    ([id, values]) => {
      const { widgets } = app.rootGraph.getNodeById(id);
      for (const [name, value] of Object.entries(values)) widgets.find((widget) => widget.name === name).value = value;
    },
    [id, values],
  );
}

/** The channels of the picture that a node shows. */
function picture(page, id) {
  return page.evaluate(async (id) => {
    const [image] = app.nodeOutputs[id].images;
    const answer = await app.api.fetchApi(`/view?${new URLSearchParams(image)}`);
    const bitmap = await createImageBitmap(await answer.blob());
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    return [...context.getImageData(0, 0, bitmap.width, bitmap.height).data];
  }, id);
}
