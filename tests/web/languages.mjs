// The page in other languages: what it says of our nodes and on them, how they are found, in both renderers.

const CONTROL = "HRV_ConceptStrengthen";
const BUILD = "HRV_Build";

/**
 * @param {any} tools of drive.mjs
 * @param {Record<string, { titles: Record<string, string>, searches: Record<string, string> }>} languages
 */
export async function languages(tools, languages) {
  const seen = {};
  for (const [language, expected] of Object.entries(languages)) seen[language] = await pageIn(language, expected, tools);
  await changeTo("en", "Build HRV", tools);
  seen.en = { titles: await titles(tools.page) };
  return seen;
}

async function pageIn(language, { titles: expected, searches }, tools) {
  const { page, screenshot, search, setting, help } = tools;
  await setting("Comfy.VueNodes.Enabled", false);
  await changeTo(language, expected[BUILD], tools);
  const shown = await help(CONTROL, expected[CONTROL]);
  const seen = { titles: await titles(page), help: shown, ...(await nodes(page, language)), found: {} };
  await page.locator(".hrv-status-says").waitFor();
  seen.panel = await page.locator(".hrv-status-says").innerText();
  seen.tooltips = { widget: await tooltip(page, "strength"), node: await tooltip(page, null) };
  await screenshot(`language-${language}`);
  await setting("Comfy.VueNodes.Enabled", true);
  const header = page.locator("[data-node-id]").filter({ hasText: expected[CONTROL] });
  await header.waitFor();
  seen.nodes2 = await header.innerText();
  await screenshot(`language-${language}-nodes2`);
  for (const [words, title] of Object.entries(searches)) seen.found[words] = await search(words, title);
  return seen;
}

// The page defines its nodes again and opens the workflow again, whose nodes are others then. It may do so before it has
// the language, so that they are defined once more.
async function changeTo(language, title, { page, setting, command }) {
  await page.evaluate(() => {
    app.rootGraph.clear();
    app.rootGraph.add(LiteGraph.createNode("Note"));
    app.rootGraph.nodes[0].isOld = true;
  });
  await setting("Comfy.Locale", language);
  await page.waitForFunction(() => !app.rootGraph.nodes.some(({ isOld }) => isOld));
  await command("Comfy.RefreshNodeDefinitions");
  await page.waitForFunction(([type, title]) => LiteGraph.registered_node_types[type].title === title, [BUILD, title]);
}

function titles(page) {
  return page.evaluate(() =>
    Object.fromEntries(
      Object.entries(LiteGraph.registered_node_types)
        .filter(([type]) => type.startsWith("HRV_"))
        .map(([type, { title }]) => [type, title]),
    ),
  );
}

// A control and a build on an empty graph, and what the page calls their parts. Of an id that was there before, the page
// keeps the labels of widgets.
function nodes(page, language) {
  return page.evaluate(
    ([control, build, language]) => {
      app.rootGraph.clear();
      const [one, other] = [control, build].map((type) => LiteGraph.createNode(type));
      [one.id, other.id] = [control, build].map((type) => `${type}-${language}`);
      one.pos = [100, 100];
      other.pos = [600, 100];
      for (const node of [one, other]) app.rootGraph.add(node);
      app.canvas.ds.reset();
      return {
        category: LiteGraph.registered_node_types[control].category,
        widgets: Object.fromEntries(one.widgets.map(({ name, label }) => [name, label])),
        inputs: one.inputs.filter(({ widget }) => !widget).map(({ localized_name }) => localized_name),
        menu: app.collectNodeMenuItems(other).map(({ content }) => content),
      };
    },
    [CONTROL, BUILD, language],
  );
}

// What the page says when the pointer rests on a widget of the control, or on its title.
async function tooltip(page, name) {
  const [x, y] = await page.evaluate(
    ([type, name]) => {
      const node = app.rootGraph.nodes.find((candidate) => candidate.type === type);
      const widget = node.widgets.find((candidate) => candidate.name === name);
      const [left, top] = widget ? [node.size[0] / 2, widget.last_y + 10] : [node.size[0] / 2, -15];
      const { left: pageLeft, top: pageTop } = app.canvas.canvas.getBoundingClientRect();
      const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + left, node.pos[1] + top]);
      return [pageLeft + x, pageTop + y];
    },
    [CONTROL, name],
  );
  await page.mouse.move(x - 5, y);
  await page.mouse.move(x, y);
  const shown = page.locator(".node-tooltip");
  await shown.waitFor();
  const text = await shown.innerText();
  await page.mouse.move(x, 900); // over nothing
  await shown.waitFor({ state: "hidden" });
  return text;
}
