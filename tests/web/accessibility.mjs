// The pack's elements without a mouse: what Chromium tells screen readers of them, and what keys reach and do.

const CONTROL = "HRV_ConceptStrengthen";

export async function accessibility(tools) {
  const seen = {};
  for (const renderer of ["classic", "nodes2"]) {
    await tools.setting("Comfy.VueNodes.Enabled", renderer === "nodes2");
    await build(tools, renderer);
    seen[renderer] = { tree: await tree(tools.page), ...(await keys(tools.page)), zoom: await zoomOver(tools.page, ".hrv-words-chip") };
  }
  seen.menu = await menuByKeys(tools.page);
  await tools.screenshot("accessibility");
  await tools.setting("Comfy.VueNodes.Enabled", false);
  return seen;
}

/** A prompt with its words, a control that reads it, an HRV with its map, and a build with its progress. */
async function build({ page, load, command, workflow }, renderer) {
  await load(`accessibility-${renderer}`, workflow);
  await page.evaluate((control) => {
    app.rootGraph.clear();
    const encoder = addNode("HRV_TextEncode", [0, 0], { text: "a red car" });
    addNode("HRV_LoadMini", [-400, 0]).connect(1, encoder, "clip");
    const target = addNode(control, [500, 0]);
    encoder.connect(0, target, "conditioning");
    addNode("HRV_Load", [0, 400]).connect(0, target, "hrv");
    addNode("HRV_ScaleHeads", [500, 500]);
    addNode("HRV_Build", [900, 0]);
  }, CONTROL);
  await command("Comfy.Canvas.FitView");
  await page.locator(".hrv-words-chip").nth(2).waitFor();
  await page.waitForFunction(() => /128 heads/.test(document.querySelector(".hrv-heads canvas")?.ariaLabel ?? ""));
  await page.locator(".hrv-status").waitFor();
}

/** Roles and names of all elements in the pack's panels, by Chromium. */
async function tree(page) {
  const session = await page.context().newCDPSession(page);
  const found = {};
  for (const panel of [".hrv-words", ".hrv-heads", ".hrv-status"]) {
    const { result } = await session.send("Runtime.evaluate", { expression: `document.querySelector("${panel}")` });
    const { nodes } = await session.send("Accessibility.queryAXTree", { objectId: result.objectId });
    found[panel] = nodes
      .filter(({ ignored, role }) => !ignored && !["StaticText", "InlineTextBox", "generic", "MenuListPopup", "option"].includes(role.value))
      .map(({ role, name }) => [role.value, name?.value ?? ""]);
  }
  await session.detach();
  return found;
}

/** From the first word on by Tab and Enter alone, and a head by the arrow keys. */
async function keys(page) {
  await page.evaluate(() => {
    const field = (type, name) => app.rootGraph.nodes.find((node) => node.type === type).widgets.find((widget) => widget.name === name);
    field("HRV_ConceptStrengthen", "words").value = "";
    field("HRV_ScaleHeads", "heads").value = "";
    document.querySelector(".hrv-words-chip").focus();
  });
  await page.keyboard.press("Tab");
  const focused = await page.evaluate(() => document.activeElement.dataset.word);
  await page.keyboard.press("Enter");
  await page.keyboard.press("Delete");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Space");
  const words = await value(page, CONTROL, "words");
  await page.locator(".hrv-heads select:visible").first().focus();
  const passed = [];
  for (let step = 0; step < 8 && !passed.includes("CANVAS"); step++) {
    await page.keyboard.press("Tab");
    passed.push(await page.evaluate(() => document.activeElement.tagName));
  }
  for (const key of ["ArrowRight", "ArrowDown"]) await page.keyboard.press(key);
  const said = await page.locator(".hrv-heads-says").first().innerText();
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector(".hrv-heads-says").textContent.startsWith("Added"));
  const nodes = await page.evaluate(() => app.rootGraph.nodes.length);
  return { focused, words, passed, said, nodes, heads: await value(page, "HRV_ScaleHeads", "heads") };
}

/** How much larger the graph is after the wheel was turned over an element. */
async function zoomOver(page, element) {
  const before = await page.evaluate(() => app.canvas.ds.scale);
  await page.locator(element).first().hover();
  await page.mouse.wheel(0, -120);
  await page.waitForFunction((before) => app.canvas.ds.scale !== before, before);
  return (await page.evaluate(() => app.canvas.ds.scale)) / before;
}

/** A concept by keys alone in Nodes 2.0, where the page has its fields as elements. */
async function menuByKeys(page) {
  const id = await page.evaluate((type) => app.rootGraph.nodes.find((node) => node.type === type).id, CONTROL);
  await page.locator(`[data-node-id="${id}"] [role=combobox][aria-label=concept]`).focus();
  await page.keyboard.press("Enter");
  const options = page.locator("[role=option]");
  await options.first().waitFor();
  await page.keyboard.type("Sha");
  await page.waitForFunction(() => document.querySelectorAll("[role=option]").length < 3);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  return value(page, CONTROL, "concept");
}

function value(page, type, name) {
  return page.evaluate(
    ([type, name]) => app.rootGraph.nodes.find((node) => node.type === type).widgets.find((widget) => widget.name === name).value,
    [type, name],
  );
}
