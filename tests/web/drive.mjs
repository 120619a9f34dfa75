// Drives the real front end in a browser and writes down what it shows; the Python tests judge it.
// Parts that look at one thing closely stand in files of their own.
//
//   node drive.mjs TASK.json REPORT.json
//
// TASK: {address, browser, profile, screenshots, pack, workflows: {name: graph}, light: {type: {widget: value}},
//        runs: [name],
//        broken: graph, texts: prompt, searches: {words: title}, commonSearches: {words: title}, help: [node class],
//        languages: {code: {titles: {node class: title}, searches: {words: title}}}}

import fs from "node:fs";
import path from "node:path";

import { openBrowser } from "../../scripts/launcher/browser.mjs";
import { accessibility } from "./accessibility.mjs";
import { defineAddNode } from "./add_node.mjs";
import { conceptMenus } from "./concept_menus.mjs";
import { handling } from "./handling.mjs";
import { heatMaps } from "./heat_maps.mjs";
import { journey } from "./journey.mjs";
import { languages } from "./languages.mjs";
import { progress } from "./progress.mjs";
import { wordMenus } from "./word_menus.mjs";

const TITLE_HEIGHT = 30;
const SETTLE_MS = 60_000; // for what the page does by itself
const RUN_MS = 120_000; // for a start of the page, and for a run

const [taskPath, reportPath] = process.argv.slice(2);
const task = JSON.parse(fs.readFileSync(taskPath, "utf8"));
const report = { console: [], network: [], workflows: {}, runs: {}, searches: {}, help: {} };

const context = await openBrowser(task.browser, task.profile);
await context.addInitScript(defineAddNode);
const [page] = context.pages();
page.setDefaultTimeout(SETTLE_MS);
page.on("pageerror", (error) => report.console.push({ kind: "exception", text: String(error.stack), from: "" }));
page.on("console", (message) => {
  if (["error", "warning"].includes(message.type())) {
    report.console.push({ kind: message.type(), text: message.text(), from: message.location().url });
  }
});
page.on("response", (response) => {
  if (response.status() >= 400) report.network.push(`${response.status()} ${response.url()}`);
});

try {
  await drive();
} catch (error) {
  await page.screenshot({ path: path.join(task.screenshots, "failure.png") });
  throw error;
} finally {
  await context.close();
}
fs.writeFileSync(reportPath, JSON.stringify(report));

async function drive() {
  const [first, ...others] = Object.keys(task.workflows);
  report.withoutUs = await withoutOurExtension(first);
  await openTemplate(first);
  await look(first);
  report.templates = await templates();
  for (const name of others) {
    await load(name, task.workflows[name]);
    await look(name);
  }
  await load("broken", task.broken);
  await errorOverlay().waitFor();
  report.broken = await errorOverlay().innerText();

  await setting("Comfy.VueNodes.Enabled", true);
  for (const [name, graph] of Object.entries(task.workflows)) {
    await load(name, graph);
    report.workflows[name].boxesInNodes2 = await boxesInNodes2(name);
    report.workflows[name].complaints.push(...(await complaints()));
  }
  await setting("Comfy.VueNodes.Enabled", false);

  const control = task.workflows["03 Strengthen a concept"];
  const tools = { page, load, setting, command, screenshot, workflow: control, run: pressRun };
  report.journey = await journey(tools);
  report.handling = await handling(tools);
  report.accessibility = await accessibility(tools);
  report.menus = await conceptMenus(tools);
  report.words = await wordMenus(tools);
  report.heads = await heatMaps(tools);
  report.progress = await progress({ ...tools, build: task.workflows["12 Build and save an HRV"] });

  for (const name of task.runs) {
    await load(name, task.workflows[name]);
    report.runs[name] = await run(name, task.light);
  }
  report.filesAfterRefresh = await hrvFilesAfterRefresh();

  for (const [words, title] of Object.entries(task.searches)) report.searches[title] = await search(words, title);
  report.commonSearches = {};
  for (const [words, title] of Object.entries(task.commonSearches)) report.commonSearches[words] = await search(words, title);
  for (const nodeClass of task.help) report.help[nodeClass] = await help(nodeClass);
  report.texts = await texts();
  report.languages = await languages({ ...tools, search, help }, task.languages);
}

// What the page makes of every workflow when none of our code runs in it.
async function withoutOurExtension(first) {
  await openTemplate(first, ["hrv"]);
  const found = {};
  for (const [name, graph] of Object.entries(task.workflows)) {
    await load(name, graph);
    found[name] = await page.evaluate(async () => ({
      prompt: (await app.graphToPrompt()).output,
      saved: app.rootGraph.serialize(),
    }));
  }
  return found;
}

// The first visit would show a tour; a link to one of our templates opens that instead of the default graph.
async function openTemplate(name, disabledExtensions = []) {
  const settings = {
    "Comfy.TutorialCompleted": true,
    "Comfy.VueNodes.Enabled": false,
    "Comfy.Minimap.Visible": false,
    "Comfy.Extension.Disabled": disabledExtensions,
  };
  await page.request.post(`http://${task.address}/api/settings`, { data: settings });
  const link = name.replace(/^\d+ /, "").toLowerCase().replaceAll(" ", "-");
  await page.goto(`http://${task.address}/?template=${link}&source=${task.pack}`);
  await page.waitForFunction(
    (count) => window.app?.rootGraph?.nodes.length === count && window.app.extensionManager.workflow,
    task.workflows[name].nodes.length,
    { timeout: RUN_MS },
  );
}

async function load(name, graph) {
  await page.evaluate(([graph, name]) => app.loadGraphData(graph, true, true, name), [graph, name]);
}

function setting(id, value) {
  return page.evaluate(([id, value]) => app.extensionManager.setting.set(id, value), [id, value]);
}

function command(id) {
  return page.evaluate((id) => app.extensionManager.command.execute(id), id);
}

function errorOverlay() {
  return page.getByTestId("error-overlay");
}

async function screenshot(name) {
  await page.screenshot({ path: path.join(task.screenshots, `${name}.png`) });
}

// What is wrong on the screen: the front end's list of errors, toasts of failure, dialogs.
async function complaints() {
  const shown = page.locator(
    "[data-testid=error-overlay]:visible, .p-toast-message-error:visible, .p-toast-message-warn:visible, [role=dialog]:visible",
  );
  return shown.allInnerTexts();
}

async function look(name) {
  await command("Comfy.Canvas.FitView");
  const found = await page.evaluate(async (titleHeight) => {
    const graph = app.rootGraph;
    const box = ([x, y], [width, height], top = 0) => [x, y - top, x + width, y + height];
    return {
      prompt: (await app.graphToPrompt()).output,
      saved: graph.serialize(),
      unknown: graph.nodes.filter((node) => !(node.type in LiteGraph.registered_node_types)).map((node) => node.type),
      boxes: graph.nodes.map((node) => ({ id: node.id, box: box(node.pos, node.size, titleHeight) })),
      groups: graph.groups.map((group) => ({ id: group.title, box: box(group.pos, group.size) })),
    };
  }, TITLE_HEIGHT);
  await screenshot(name);
  report.workflows[name] = { ...found, complaints: await complaints() };
}

async function boxesInNodes2(name) {
  await command("Comfy.Canvas.FitView");
  const count = task.workflows[name].nodes.length;
  await page.waitForFunction((count) => document.querySelectorAll("[data-node-id]").length === count, count);
  await screenshot(`${name}-nodes2`);
  return page.evaluate(() =>
    [...document.querySelectorAll("[data-node-id]")].map((element) => {
      const { left, top, right, bottom } = element.getBoundingClientRect();
      return { id: Number(element.dataset.nodeId), box: [left, top, right, bottom] };
    }),
  );
}

// The pack's templates as the browser of them shows them: name -> whether its own picture is there.
async function templates() {
  await command("Comfy.BrowseTemplates");
  const cards = page.locator("[data-testid^=template-workflow-]");
  await cards.nth(Object.keys(task.workflows).length - 1).waitFor();
  const shown = [];
  for (const card of await cards.all()) {
    // Pictures are there only while their cards are in view.
    await card.scrollIntoViewIfNeeded();
    const image = await card.locator("img").first().elementHandle();
    await page.waitForFunction((image) => image.complete && image.naturalWidth > 0, image);
    const name = (await card.getAttribute("data-testid")).replace("template-workflow-", "");
    shown.push([name, !(await image.getAttribute("src")).endsWith("/default-template.png")]);
  }
  await screenshot("templates");
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("button", { name: /close/i }).first().click();
  await dialog.waitFor({ state: "hidden" });
  return Object.fromEntries(shown);
}

// Presses Run and waits for the end.
async function pressRun() {
  await page.evaluate(() => {
    window.hrvRunEnd = null;
    for (const kind of ["execution_success", "execution_error", "execution_interrupted"]) {
      app.api.addEventListener(kind, ({ detail }) => (window.hrvRunEnd ??= { kind, detail }), { once: true });
    }
  });
  await page.getByTestId("queue-button").click();
  const end = await page.waitForFunction(() => window.hrvRunEnd, null, { timeout: RUN_MS });
  const { kind, detail } = await end.jsonValue();
  return { end: kind, message: detail.exception_message ?? "" };
}

// Sets widgets by node class, runs, and looks at the results.
async function run(name, values) {
  await page.evaluate((values) => {
    for (const node of app.rootGraph.nodes) {
      for (const [widget, value] of Object.entries(values[node.type] ?? {})) {
        node.widgets.find((candidate) => candidate.name === widget).value = value;
      }
    }
  }, values);
  const ended = await pressRun();
  await page.waitForFunction(() =>
    app.rootGraph.nodes.every((node) => !app.nodeOutputs[node.id]?.images || node.imgs?.length),
  );
  await screenshot(`${name}-after-run`);
  const pictures = await page.evaluate(() =>
    Object.fromEntries(Object.entries(app.nodeOutputs).map(([id, output]) => [id, output.images?.length ?? 0])),
  );
  return { ...ended, pictures, complaints: await complaints() };
}

// What nodes show on themselves after a run: the texts on the canvas, and all that is seen of each node in Nodes 2.0.
async function texts() {
  await page.evaluate((prompt) => app.loadApiJson(prompt, "texts"), task.texts);
  const { end, message } = await run("texts", {});
  await command("Comfy.Canvas.FitView");
  const canvas = await page.locator(".dom-widget:visible").allInnerTexts();
  await setting("Comfy.VueNodes.Enabled", true);
  const count = Object.keys(task.texts).length;
  await page.waitForFunction((count) => document.querySelectorAll("[data-node-id]").length === count, count);
  // Their texts come later than the nodes.
  const ends = canvas.map((text) => text.trim().split("\n").at(-1).replace(/^\d+\. /, ""));
  await page.waitForFunction((ends) => ends.every((end) => document.body.innerText.includes(end)), ends);
  const nodes2 = await page.evaluate(() =>
    Object.fromEntries(
      [...document.querySelectorAll("[data-node-id]")].map((element) => [element.dataset.nodeId, element.innerText]),
    ),
  );
  await screenshot("texts-nodes2");
  return { end, message, canvas, nodes2 };
}

async function hrvFilesAfterRefresh() {
  await command("Comfy.RefreshNodeDefinitions");
  return page.evaluate(() => {
    const { values } = LiteGraph.createNode("HRV_Load").widgets[0].options;
    return typeof values === "function" ? values() : values;
  });
}

// Whether the search box offers the node with this title for these words.
async function search(words, title) {
  await command("Workspace.SearchBox.Toggle");
  const dialog = page.getByRole("dialog");
  await dialog.locator("input").first().fill(words);
  const result = dialog.getByTestId("result-item").filter({ hasText: title }).first();
  const found = await result.waitFor().then(
    () => true,
    () => false,
  );
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  return found;
}

// The text that Node Info shows for a node, and whether its picture is there.
async function help(nodeClass, title = "") {
  await page.evaluate((nodeClass) => {
    app.rootGraph.clear();
    const node = addNode(nodeClass, [300, 300]);
    app.canvas.selectNode(node);
    app.canvas.centerOnNode(node);
  }, nodeClass);
  await page.getByTestId("info-button").click();
  const heading = page.locator(".node-help-content h1").filter({ hasText: title });
  await heading.waitFor();
  const image = await page.locator(".node-help-content img").first().elementHandle();
  await page.waitForFunction((image) => image.complete, image);
  return {
    text: await page.locator(".node-help-content").innerText(),
    picture: await image.evaluate((image) => image.naturalWidth > 0),
  };
}
