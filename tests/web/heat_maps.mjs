// Heat maps in the page: opened and closed in both renderers, looked at by pointer and keys, clicked, saved.

import fs from "node:fs";

export async function heatMaps({ page, load, setting, command, screenshot, workflow }) {
  const seen = {};
  await setting("Comfy.VueNodes.Enabled", false);
  await load("heads", workflow);
  await buildGraph(page);
  await command("Comfy.Canvas.FitView");
  for (const renderer of ["classic", "nodes2"]) {
    await setting("Comfy.VueNodes.Enabled", renderer === "nodes2");
    await maps(page).nth(2).waitFor();
    seen[renderer] = { shown: await labels(page), ...(await look(page)) };
    await screenshot(`heads-${renderer}`);
  }
  seen.themes = await themes({ page, setting, screenshot });
  seen.afterKeys = await page.evaluate(() => app.rootGraph.nodes.length);
  seen.files = { csv: await download(page, "CSV"), png: await download(page, "PNG") };
  seen.saved = await page.evaluate(async () => ({
    values: Object.fromEntries(app.rootGraph.serialize().nodes.map((node) => [node.type, node.widgets_values ?? []])),
    prompt: Object.fromEntries(
      Object.values((await app.graphToPrompt()).output).map((node) => [node.class_type, Object.keys(node.inputs)]),
    ),
  }));
  await setting("Comfy.VueNodes.Enabled", false);
  seen.again = await reopened(page);
  seen.toggled = await toggled(page, command);
  seen.difference = await difference(page, screenshot);
  seen.large = await large(page, screenshot);
  seen.removed = await page.evaluate(() => app.rootGraph.clear()).then(() => maps(page).count());
  return seen;
}

const maps = (page) => page.locator(".hrv-heads canvas");

function sizes(page) {
  return page.evaluate(() => Object.fromEntries(app.rootGraph.nodes.map((node) => [node.id, [...node.size]])));
}

/** Load HRV, which opens by itself, Weaken Heads by Order and an Instant HRV that never ran, and Scale Heads. */
async function buildGraph(page) {
  await page.evaluate(() => {
    app.rootGraph.clear();
    const load = addNode("HRV_Load");
    const weaken = addNode("HRV_WeakenHeads", [400, 0], { concept: "Color" });
    load.connect(0, weaken, "hrv");
    addNode("HRV_ScaleHeads", [0, 400], { heads: "" });
    const instant = addNode("HRV_Instant", [800, 0]);
    app.canvas.selectItems([weaken, instant]);
  });
  await page.evaluate(() => app.extensionManager.command.execute("hrv.ToggleHeads"));
  await page.evaluate(() => app.canvas.deselectAll());
}

/** What screen readers hear of each map, once those with an HRV have it. */
async function labels(page) {
  await page.waitForFunction(
    () => [...document.querySelectorAll(".hrv-heads canvas")].filter((map) => /128 heads/.test(map.ariaLabel)).length === 2,
  );
  return page.evaluate(() =>
    [...document.querySelectorAll(".hrv-heads")].map((map) => [
      map.querySelector("canvas").ariaLabel.split(".")[0],
      map.querySelector(".hrv-heads-says").textContent,
    ]),
  );
}

/** Until the view, which moves for a while when it is fitted, stands still. */
async function settled(page) {
  await page.waitForFunction(
    () => {
      const [before, now] = [app.canvas.seenView, [app.canvas.ds.scale, ...app.canvas.ds.offset].join()];
      app.canvas.seenView = now;
      return now === before;
    },
    undefined,
    { polling: 300 },
  );
}

/** The map of Load HRV by pointer, by keys, and clicked. */
async function look(page) {
  const map = page.locator(".hrv-heads").filter({ has: page.locator("canvas[aria-label*='all concepts']") }).first();
  const says = map.locator(".hrv-heads-says");
  const field = () =>
    page.evaluate(() => app.rootGraph.nodes.find((node) => node.type === "HRV_ScaleHeads").widgets.find(({ name }) => name === "heads").value);
  await settled(page);
  const zoom = await page.evaluate(() => app.canvas.ds.scale);
  const first = { x: 43 * zoom, y: 17 * zoom };
  await map.locator("canvas").hover({ position: first });
  await page.waitForFunction((element) => element.textContent, await says.elementHandle());
  const hovered = await says.innerText();
  await map.locator("canvas").click({ position: first });
  await page.waitForFunction((element) => element.textContent.startsWith("Added"), await says.elementHandle());
  const added = [await says.innerText(), await field()];
  for (const key of ["ArrowDown", "ArrowRight", "Delete", "Enter"]) await page.keyboard.press(key);
  await page.waitForFunction((element) => element.textContent.includes("2 heads"), await says.elementHandle());
  const both = await field();
  for (const key of ["Enter", "ArrowLeft", "ArrowUp", "Enter"]) {
    await page.keyboard.press(key);
    if (key === "Enter") await page.waitForFunction((element) => element.textContent.startsWith("Removed"), await says.elementHandle());
  }
  return { hovered, added, both, removed: await field() };
}

async function themes({ page, setting, screenshot }) {
  const ink = () => page.evaluate(() => getComputedStyle(document.querySelector(".hrv-heads")).color);
  const dark = await ink();
  await setting("Comfy.ColorPalette", "light");
  await page.waitForFunction((dark) => getComputedStyle(document.querySelector(".hrv-heads")).color !== dark, dark);
  const light = await ink();
  await screenshot("heads-light");
  await setting("Comfy.ColorPalette", "dark");
  await page.waitForFunction((dark) => getComputedStyle(document.querySelector(".hrv-heads")).color === dark, dark);
  return { dark, light };
}

/** The beginning of a file that a button of the first map with all concepts saves. */
async function download(page, name) {
  const map = page.locator(".hrv-heads").filter({ has: page.locator("canvas[aria-label*='all concepts']") }).first();
  const waiting = page.waitForEvent("download");
  await map.getByRole("button", { name }).click();
  const file = fs.readFileSync(await (await waiting).path());
  const text = file.toString("latin1");
  return { size: file.length, lines: text.split("\r\n").length - 1, start: text.slice(0, 200) };
}

/** What is open after the workflow was saved and opened again, and how large its nodes are before and after. */
async function reopened(page) {
  await page.waitForFunction(() => app.rootGraph.nodes.find((node) => node.type === "HRV_Load").size[1] > 200);
  const before = await sizes(page);
  await drawEarly(page);
  await page.evaluate(() => app.loadGraphData(app.rootGraph.serialize(), true, true, "again"));
  await maps(page).nth(2).waitFor();
  return { before, after: await sizes(page) };
}

/**
 * Let the page draw the graph before it mounts the elements of new widgets, as it does once one of its effects has drawn
 * the graph and so depends on all widgets (useLitegraphSettings.ts in the host's front end).
 */
async function drawEarly(page) {
  await page.evaluate(async () => {
    const { setting } = app.extensionManager;
    const isShown = setting.get("Comfy.Graph.CanvasInfo");
    for (const value of [!isShown, isShown]) {
      const changed = setting.set("Comfy.Graph.CanvasInfo", value);
      app.canvas.setDirty(true, true);
      await changed;
    }
  });
}

/** Closing a map gives its node the size that it had; a map is at its place however early the page draws. */
async function toggled(page, command) {
  const size = () => page.evaluate(() => [...app.rootGraph.nodes.find((node) => node.type === "HRV_WeakenHeads").size]);
  await page.evaluate(() => app.canvas.selectItems(app.rootGraph.nodes.filter((node) => node.type === "HRV_WeakenHeads")));
  await command("hrv.ToggleHeads");
  const closed = await size();
  await drawEarly(page);
  await command("hrv.ToggleHeads");
  const open = await size();
  await maps(page).nth(2).waitFor();
  await command("hrv.ToggleHeads");
  return { closed, open, closedAgain: await size() };
}

/** Two HRVs on one map. */
async function difference(page, screenshot) {
  await page.evaluate(() => {
    app.rootGraph.clear();
    const [load, clamp, compare] = ["HRV_Load", "HRV_Clamp", "HRV_Compare"].map((type, number) => addNode(type, [400 * number, 0]));
    clamp.widgets[0].value = 2;
    load.connect(0, clamp, "hrv");
    load.connect(0, compare, "hrv");
    clamp.connect(0, compare, "other");
    app.canvas.selectItems([compare]);
  });
  await page.evaluate(() => app.extensionManager.command.execute("hrv.ToggleHeads"));
  await page.evaluate(() => app.extensionManager.command.execute("Comfy.Canvas.FitView"));
  const which = page.locator("select[aria-label=HRV]:visible");
  await which.selectOption("hrv − other");
  const concept = which.locator("xpath=..").locator("select[aria-label=Concept]");
  await concept.selectOption("Color");
  await screenshot("heads-difference");
  return page.evaluate(() => app.rootGraph.nodes.find((node) => node.type === "HRV_Compare").properties["hrv.heads"]);
}

/** 1300 heads and 34 concepts: how long a drawing takes. */
async function large(page, screenshot) {
  const view = await page.evaluate(async () => {
    const base = new URL(document.querySelector("script[src*=extensions]")?.src ?? location.href).origin;
    const pack = (await (await fetch("/extensions")).json()).find((path) => path.endsWith("/hrv.js")).replace(/hrv\.js$/, "hrv/");
    const { readHRV } = await import(`${base}${pack}heads.js`);
    const { HeatMapView } = await import(`${base}${pack}heat_map_view.js`);
    const depths = [["input", 4, 2, 10], ["input", 5, 2, 10], ["input", 7, 10, 20], ["input", 8, 10, 20], ["middle", 0, 10, 20], ["output", 0, 10, 20], ["output", 1, 10, 20], ["output", 2, 10, 20], ["output", 3, 2, 10], ["output", 4, 2, 10], ["output", 5, 2, 10]];
    const section = { input: "down", middle: "mid", output: "up" };
    const layout = depths.flatMap(([block, id, depth, heads]) => Array.from({ length: depth }, (_, index) => [block, id, index, heads]));
    const names = layout.map(([block, id, index]) => `${section[block]}${block === "middle" ? "" : id}.${index}`);
    const concepts = Array.from({ length: 34 }, (_, number) => `Concept ${number}`);
    const values = Float32Array.from({ length: 34 * 1300 }, (_, number) => (number * 7919) % 1000 / 400);
    let binary = "";
    for (const byte of new Uint8Array(values.buffer)) binary += String.fromCharCode(byte);
    const hrv = readHRV({ concepts, layout, names, values: btoa(binary) });
    const view = new HeatMapView({ onState: () => {}, onHead: async () => "" });
    Object.assign(view.element.style, { position: "fixed", inset: "60px 40px 40px 80px", width: "1200px", height: "900px", zIndex: 9999, background: "#202020" });
    document.body.append(view.element);
    const shown = { hrvs: new Map([["hrv", { hrv, isDifference: false }]]), message: "", concept: null, outlined: new Set([3]) };
    view.update(shown, { concept: "*" });
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    const time = (count, act) => {
      const start = performance.now();
      for (let turn = 0; turn < count; turn++) act(turn);
      return (performance.now() - start) / count;
    };
    const draw = time(3, () => view.draw());
    const point = time(50, (turn) => view.say({ panel: turn % 34, position: turn * 20 }));
    window.hrvLarge = view;
    return { draw, point };
  });
  await screenshot("heads-large");
  await page.evaluate(() => window.hrvLarge.remove());
  return view;
}
