// Long work in the page: its progress while it runs, after a reload, after a cancel, and in a subgraph.

const BUILD = "HRV_Build";

/** Widgets of a build that does not end by itself, and that no earlier one on the server left anything of. */
const LONG = { images: 2000, steps: 2, batch_size: 1, seed: Date.now() };

export async function progress({ page, load, setting, command, screenshot, build }) {
  const seen = {};
  await load("progress", build);
  await prepare(page, LONG);
  seen.closed = await size(page);
  for (const toggle of ["hrv.ToggleProgress", "hrv.ToggleHeads"]) await command(toggle);
  seen.open = await size(page);
  await command("Comfy.Canvas.FitView");
  seen.before = await says(page, /./);
  await page.evaluate(() => app.queuePrompt(0));
  seen.running = await says(page, /^[1-9]\d* of 2000 images, agreement/);
  const first = await heads(page);
  await page.waitForFunction((first) => document.querySelector(".hrv-heads canvas").toDataURL() !== first, first);
  await screenshot("progress-running");
  seen.curves = await page.evaluate(() => document.querySelector(".hrv-curves canvas").clientHeight);

  await page.reload();
  await page.waitForFunction((type) => window.app?.rootGraph?.nodes.some((node) => node.type === type), BUILD);
  seen.reloaded = await says(page, /^\d+ of 2000 images, agreement/);
  await heads(page);
  await page.evaluate(() => app.api.interrupt()); // the page's own button knows nothing of runs before a reload
  seen.cancelled = await says(page, /^Cancelled/);
  await screenshot("progress-cancelled");

  await setting("Comfy.VueNodes.Enabled", true);
  seen.nodes2 = await says(page, /^Cancelled/);
  await screenshot("progress-nodes2");
  await setting("Comfy.VueNodes.Enabled", false);
  seen.outer = await outer(page, setting, screenshot);
  seen.inSubgraph = await inSubgraph(page, screenshot);
  return seen;
}

/** Select the build, with these widgets. */
function prepare(page, values) {
  return page.evaluate(
    ([type, values]) => {
      const node = app.rootGraph.nodes.find((candidate) => candidate.type === type);
      for (const [name, value] of Object.entries(values)) node.widgets.find((widget) => widget.name === name).value = value;
      app.canvas.selectItems([node]);
    },
    [BUILD, values],
  );
}

function size(page) {
  return page.evaluate((type) => [...app.rootGraph.nodes.find((node) => node.type === type).size], BUILD);
}

/** What the panel says, once it fits. */
async function says(page, pattern) {
  const found = await page.waitForFunction(
    (pattern) => {
      const text = document.querySelector(".hrv-status-says")?.textContent ?? "";
      return new RegExp(pattern).test(text) && text;
    },
    pattern.source,
    { timeout: 120_000 },
  );
  return found.jsonValue();
}

/** The map once it shows heads of the HRV so far, as it is then. */
async function heads(page) {
  await page.waitForFunction(() => /128 heads/.test(document.querySelector(".hrv-heads canvas")?.ariaLabel ?? ""));
  return page.evaluate(() => document.querySelector(".hrv-heads canvas").toDataURL());
}

/** What the node of a subgraph says of the build inside while it runs, in both renderers, and after a cancel. */
async function outer(page, setting, screenshot) {
  await page.evaluate((type) => {
    const { node } = app.rootGraph.convertToSubgraph(new Set([app.rootGraph.nodes.find((candidate) => candidate.type === type)]));
    window.hrvOuter = node;
    return app.queuePrompt(0);
  }, BUILD);
  const badge = await page.waitForFunction(() => {
    const texts = window.hrvOuter.badges.map((badge) => (typeof badge === "function" ? badge() : badge).text);
    return texts.find((text) => /^[1-9]\d* of 2000 images/.test(text));
  });
  await screenshot("progress-outer");
  await setting("Comfy.VueNodes.Enabled", true);
  const label = page.locator(".hrv-outer-status");
  const running = await label.filter({ hasText: "of 2000 images" }).innerText();
  await page.getByRole("button", { name: "Cancel current run" }).first().click();
  const cancelled = await label.filter({ hasText: "Cancelled" }).innerText();
  await screenshot("progress-outer-nodes2");
  await setting("Comfy.VueNodes.Enabled", false);
  return { badge: await badge.jsonValue(), running, cancelled };
}

/** The text that a node in the open graph shows, once it does. */
async function shownText(page, type) {
  const text = await page.waitForFunction(
    (type) =>
      app.canvas.graph.nodes.find((node) => node.type === type)?.widgets.find(({ name }) => name === "$$node-text-preview")?.value,
    type,
  );
  return text.jsonValue();
}

/** A shorter build in the subgraph, seen there, and what is there after a reload. */
async function inSubgraph(page, screenshot) {
  await page.evaluate((type) => {
    const { subgraph } = window.hrvOuter;
    subgraph.nodes.find((node) => node.type === type).widgets.find(({ name }) => name === "images").value = 20;
    app.canvas.openSubgraph(subgraph, window.hrvOuter);
    return app.queuePrompt(0);
  }, BUILD);
  const done = await says(page, /^Done/);
  await heads(page);
  await screenshot("progress-subgraph");
  const text = await shownText(page, BUILD);
  await page.reload();
  // The page opens where it was left, in the subgraph.
  const after = await says(page, /^Done/);
  await heads(page);
  const again = await shownText(page, BUILD);
  await page.evaluate(() => app.canvas.setGraph(app.rootGraph));
  const pictures = await page.waitForFunction(() => app.rootGraph.nodes.find((node) => node.type === "HRV_HeatMap")?.imgs?.length);
  await screenshot("progress-reloaded");
  const saved = await shownText(page, "HRV_Save");
  return { done, after, pictures: await pictures.jsonValue(), saved, sameText: again === text };
}
