// Fields for words in the page: what they offer, mark and say, in both renderers, and what is queued.

import { choose, offered, queued, setWidget } from "./concept_menus.mjs";

const CONTROL = "HRV_ConceptStrengthen";
const ENCODER = "HRV_TextEncode";

export async function wordMenus({ page, load, setting, screenshot, workflow }) {
  const seen = {};
  for (const renderer of ["classic", "nodes2"]) {
    await setting("Comfy.VueNodes.Enabled", renderer === "nodes2");
    await load("words", workflow);
    await setWidget(page, ENCODER, "text", "a (red:1.3) \\(striped\\) square, skyscraper");
    await setWidget(page, CONTROL, "words", "");
    const found = { offered: await offered(page, CONTROL, "words", "skyscraper"), says: await shown(page, renderer) };
    await choose(page, renderer, CONTROL, "words", "strip", "striped");
    await offered(page, CONTROL, "words", "striped, red");
    await choose(page, renderer, CONTROL, "words", "red", "red");
    found.queued = await queued(page, CONTROL, "words");
    await setWidget(page, ENCODER, "text", "a red square");
    await offered(page, CONTROL, "words", "red");
    found.gone = await tooltip(page, "does not contain");
    await screenshot(`words-${renderer}-gone`);
    await setWidget(page, ENCODER, "text", "a {red|blue} square");
    found.dynamic = await tooltip(page, "after a run");
    found.upstream = await upstream(page, (name) => screenshot(`words-${renderer}-${name}`));
    seen[renderer] = found;
  }
  await setting("Comfy.VueNodes.Enabled", false);
  seen.chips = await chips(page, screenshot);
  seen.afterRun = await afterRun(page);
  seen.otherEncoder = await otherEncoder(page, screenshot);
  return seen;
}

/** The words under a new encoder, and in how many chunks a long prompt is. */
async function chips(page, screenshot) {
  const write = (text) =>
    page.evaluate(
      ([type, text]) => {
        const encoder = app.rootGraph.nodes.find((node) => node.type === type);
        encoder.widgets.find(({ name }) => name === "text").value = text;
      },
      [ENCODER, text],
    );
  await page.evaluate((type) => {
    app.rootGraph.clear();
    const node = addNode(type);
    addNode("HRV_LoadMini", [-500, 0]).connect(1, node, "clip");
    app.canvas.ds.reset();
    app.canvas.centerOnNode(node);
  }, ENCODER);
  await write("a skyscraper \\(red\\) (car:1.3)");
  const shown = page.locator(".hrv-words-chip");
  await shown.nth(5).waitFor();
  const seen = {
    chips: await shown.allTextContents(),
    pieces: await shown.nth(1).locator(".piece").allTextContents(),
    says: await page.locator(".hrv-words-says").innerText(),
  };
  await screenshot("words-chips");
  const clicked = [];
  for (const [type, field] of [["HRV_ScaleHeads", "words"], ["HRV_AttendAndExcite", "subjects"]]) {
    await page.evaluate(
      ([encoder, type, field]) => {
        const kept = [encoder, "HRV_LoadMini"];
        for (const other of app.rootGraph.nodes.filter((node) => !kept.includes(node.type))) app.rootGraph.remove(other);
        const reader = addNode(type, [600, 0], { [field]: "" });
        app.rootGraph.nodes.find((node) => node.type === encoder).connect(0, reader, "conditioning");
      },
      [ENCODER, type, field],
    );
    for (const word of [3, 1, 3]) {
      await shown.nth(word).click();
    }
    clicked.push(
      await page.evaluate(
        ([type, field]) => {
          const reader = app.rootGraph.nodes.find((node) => node.type === type);
          return reader.widgets.find(({ name }) => name === field).value;
        },
        [type, field],
      ),
    );
  }
  await screenshot("words-chips-clicked");
  await write("red ".repeat(80));
  await page.locator(".hrv-words-chunk").waitFor();
  return { ...seen, clicked, long: await page.locator(".hrv-words > div:not(.hrv-words-says)").count() };
}

/** What is shown of a prompt before any run, by the text encoder upstream: HRV-mini-T's, a Gemma's, and none. */
async function upstream(page, screenshot) {
  await page.evaluate(
    ([type, control]) => {
      app.rootGraph.clear();
      const encoder = addNode(type, [0, 0], { text: "a small red skyscraper" });
      encoder.connect(0, addNode(control, [500, 0], { words: "" }), "conditioning");
      const lora = addNode("LoraLoader", [-400, 0]);
      lora.connect(1, encoder, "clip");
      addNode("HRV_LoadMini", [-800, 0], { weights: "HRV-mini-T (transformer)" }).connect(1, lora, "clip");
      addNode("CLIPLoader", [-800, 300], { clip_name: "gemma.safetensors", type: "lumina2" });
      app.canvas.centerOnNode(encoder);
    },
    [ENCODER, CONTROL],
  );
  const seen = { mini: await said(page, "14 tokens") };
  await screenshot("mini-t");
  await setWidget(page, ENCODER, "text", "red ".repeat(20));
  seen.long = await said(page, "chunks");
  await setWidget(page, ENCODER, "text", "a small red skyscraper");
  await page.evaluate(() => {
    const [loader, lora] = ["CLIPLoader", "LoraLoader"].map((name) => app.rootGraph.nodes.find(({ type }) => type === name));
    loader.connect(0, lora, "clip");
  });
  seen.gemma = await said(page, "are words");
  await screenshot("gemma");
  seen.chips = await page.locator(".hrv-words-chip").allTextContents();
  seen.offered = await offered(page, CONTROL, "words", "template");
  await setWidget(page, "CLIPLoader", "clip_name", "gone.safetensors");
  seen.gone = await said(page, "after a run");
  await page.evaluate((type) => {
    const encoder = app.rootGraph.nodes.find((node) => node.type === type);
    encoder.disconnectInput(encoder.inputs.findIndex(({ name }) => name === "clip"));
  }, ENCODER);
  await setWidget(page, ENCODER, "text", "a red skyscraper");
  return { ...seen, none: await said(page, "after a run") };
}

/** What is said above the words, once it has a text. */
async function said(page, text) {
  const found = await page.waitForFunction((text) => {
    const says = document.querySelector(".hrv-words-says")?.innerText;
    return says?.includes(text) && says;
  }, text);
  return found.jsonValue();
}

/** What a control offers of a prompt with alternatives, before a run and after it. */
async function afterRun(page) {
  await page.evaluate((type) => {
    app.rootGraph.clear();
    const [mini, encoder, tokens, control] = ["HRV_LoadMini", "HRV_TextEncode", "HRV_Tokens", type].map((name) => addNode(name));
    encoder.widgets.find(({ name }) => name === "text").value = "a {red|red}";
    mini.connect(1, encoder, "clip");
    encoder.connect(0, tokens, "conditioning");
    encoder.connect(0, control, "conditioning");
  }, CONTROL);
  const before = await tooltip(page, "after a run");
  await page.evaluate(() => app.queuePrompt(0));
  return { before, offered: await offered(page, CONTROL, "words", "red") };
}

/** What is shown of a prompt once a run has told that its text encoder is not CLIP, and after the prompt has changed. */
async function otherEncoder(page, screenshot) {
  await page.evaluate(
    ([type, control]) => {
      app.rootGraph.clear();
      const [encoder, reader] = [addNode(type), addNode(control, [600, 0], { words: "" })];
      encoder.widgets.find(({ name }) => name === "text").value = "a skyscraper";
      encoder.connect(0, reader, "conditioning");
      const word = (text, pieces, positions) => ({ text, pieces, positions, weight: 1 });
      const words = [word("a", ["a"], [3]), word("skyscraper", ["sky", "scraper"], [4, 5])];
      const output = { hrv_text: ["a skyscraper"], hrv_tokens: [{ words, length: 12, chunk: 12, groups: { template: 4, padding: 5 } }] };
      const id = String(encoder.id);
      // As the host tells it (comfy_execution, "executed").
      app.api.dispatchCustomEvent("executed", { node: id, display_node: id, output, prompt_id: "told" });
      app.canvas.centerOnNode(encoder);
    },
    [ENCODER, CONTROL],
  );
  const shown = page.locator(".hrv-words-chip");
  await shown.nth(3).waitFor();
  const seen = {
    chips: await shown.allTextContents(),
    pieces: await shown.nth(1).locator(".piece").allTextContents(),
    says: await page.locator(".hrv-words-says").innerText(),
    offered: await offered(page, CONTROL, "words", "template"),
  };
  await shown.nth(2).click();
  await screenshot("words-chips-other-encoder");
  seen.clicked = await page.evaluate((type) => {
    const reader = app.rootGraph.nodes.find((node) => node.type === type);
    return reader.widgets.find(({ name }) => name === "words").value;
  }, CONTROL);
  await setWidget(page, ENCODER, "text", "a red skyscraper");
  return { ...seen, changed: await said(page, "after a run") };
}

/** What the control's field shows. */
async function shown(page, renderer) {
  if (renderer === "nodes2") {
    const id = await page.evaluate((type) => app.rootGraph.nodes.find((node) => node.type === type).id, CONTROL);
    const field = page.locator(`[data-node-id="${id}"] [role=combobox][aria-label=words]`);
    await page.waitForFunction((element) => element.innerText.includes("effect"), await field.elementHandle());
    return (await field.innerText()).trim();
  }
  return page.evaluate((type) => {
    const node = app.rootGraph.nodes.find((candidate) => candidate.type === type);
    return node.widgets.find((widget) => widget.name === "words")._displayValue;
  }, CONTROL);
}

/** The tooltip of the control's field, once it has a text. */
async function tooltip(page, text) {
  const found = await page.waitForFunction(
    ([type, text]) => {
      const node = app.rootGraph.nodes.find((candidate) => candidate.type === type);
      const { tooltip } = node.widgets.find((widget) => widget.name === "words");
      return tooltip?.includes(text) && tooltip;
    },
    [CONTROL, text],
  );
  return found.jsonValue();
}
