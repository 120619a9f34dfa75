// Concept fields in the page: what their menus offer, in both renderers, and what is queued.

const CONTROL = "HRV_ConceptStrengthen";

export async function conceptMenus({ page, load, setting, screenshot, workflow }) {
  const seen = {};
  for (const renderer of ["classic", "nodes2"]) {
    await setting("Comfy.VueNodes.Enabled", renderer === "nodes2");
    await load("menus", workflow);
    const found = { offered: await offered(page, CONTROL, "concept", "Size") };
    await setWidget(page, CONTROL, "concept", "Colour");
    found.marked = await marked(page, renderer);
    await screenshot(`menus-${renderer}-unknown`);
    await choose(page, renderer, CONTROL, "concept", "Siz", "Size");
    found.unmarked = !(await marked(page, renderer, false));
    found.queued = await queued(page, CONTROL);
    seen[renderer] = found;
  }
  await setting("Comfy.VueNodes.Enabled", false);
  seen.subgraph = await inSubgraph(page);
  seen.promoted = await promoted(page, load, setting, screenshot, workflow);
  seen.sources = await sources(page, load, workflow);
  seen.several = await several(page, screenshot);
  return seen;
}

/** The entries of a menu, once it offers `wanted`. */
export async function offered(page, type, name, wanted) {
  const values = await page.waitForFunction(
    ([type, name, wanted]) => {
      const graphs = [app.rootGraph, ...app.rootGraph.subgraphs.values()];
      const node = graphs.flatMap((graph) => graph.nodes).find((candidate) => candidate.type === type);
      const values = node.widgets.find((widget) => widget.name === name).options.values;
      return values.includes(wanted) && values;
    },
    [type, name, wanted],
  );
  return values.jsonValue();
}

export function setWidget(page, type, name, value) {
  return page.evaluate(
    ([type, name, value]) => {
      const node = app.rootGraph.nodes.find((candidate) => candidate.type === type);
      node.widgets.find((widget) => widget.name === name).value = value;
    },
    [type, name, value],
  );
}

/** Whether the control's concept is marked as unknown, once it is what is `expected`. */
async function marked(page, renderer, expected = true) {
  if (renderer === "nodes2") {
    const invalid = page.locator("[role=combobox][aria-label=concept][aria-invalid=true]");
    await invalid.waitFor({ state: expected ? "visible" : "detached" });
  }
  const mark = await page.waitForFunction(
    ([type, expected]) => {
      const node = app.rootGraph.nodes.find((candidate) => candidate.type === type);
      const menu = node.widgets.find((widget) => widget.name === "concept");
      const found = menu.getOutlineColor() === LiteGraph.NODE_ERROR_COLOUR;
      return found === expected && { found, says: menu.tooltip };
    },
    [CONTROL, expected],
  );
  const { found, says } = await mark.jsonValue();
  return found && says;
}

/** Open a menu as people do, search it and take an entry. */
export async function choose(page, renderer, type, name, search, entry) {
  if (renderer === "nodes2") {
    const id = await page.evaluate((type) => app.rootGraph.nodes.find((node) => node.type === type).id, type);
    await page.locator(`[data-node-id="${id}"] [role=combobox][aria-label=${name}]`).click();
    await page.getByRole("listbox").locator("xpath=..").locator("input").or(page.locator("[role=combobox]:focus")).first().waitFor();
    await page.keyboard.type(search);
    // The options of the pack's own menus are none of these.
    await page.locator("[role=option]").and(page.getByRole("option", { name: entry, exact: true })).click();
  } else {
    const place = await page.evaluate(
      ([type, name]) => {
        const node = app.rootGraph.nodes.find((candidate) => candidate.type === type);
        const widget = node.widgets.find((candidate) => candidate.name === name);
        const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, node.pos[1] + widget.y + 10]);
        const { left, top } = app.canvas.canvas.getBoundingClientRect();
        return [left + x, top + y];
      },
      [type, name],
    );
    await page.mouse.click(...place);
    await page.locator(".comfy-context-menu-filter").fill(search);
    await page.getByRole("menuitem", { name: entry, exact: true }).click();
  }
}

/** The concept in the prompt that would be queued. */
export function queued(page, type, name = "concept") {
  return page.evaluate(
    async ([type, name]) => {
      const { output } = await app.graphToPrompt();
      return Object.values(output).find((node) => node.class_type === type).inputs[name];
    },
    [type, name],
  );
}

/** What the control offers in a subgraph of a subgraph, and what is queued from there. */
async function inSubgraph(page) {
  for (let depth = 0; depth < 2; depth++) {
    await page.evaluate((type) => {
      const graph = app.rootGraph;
      graph.convertToSubgraph(new Set([graph.nodes.find((node) => node.type === type || node.subgraph)]));
    }, CONTROL);
  }
  const values = await offered(page, CONTROL, "concept", "Plants");
  return { values, queued: await queued(page, CONTROL) };
}

/** The field of a control in a subgraph as its own node shows it: what it offers, and what it says of an unknown value. */
async function promoted(page, load, setting, screenshot, workflow) {
  await load("promoted", workflow);
  await page.evaluate((type) => {
    const control = app.rootGraph.nodes.find((node) => node.type === type);
    const { node } = app.rootGraph.convertToSubgraph(new Set([control]));
    const [inner] = node.subgraph.nodes;
    const slot = inner.inputs.find(({ widget }) => widget?.name === "concept");
    node.subgraph.addInput("concept", slot.type).connect(slot, inner);
    window.hrvPromoted = () => node.widgets.find(({ name }) => name === "concept");
    window.hrvPromoted().value = "Colour";
  }, CONTROL);
  const mark = await page.waitForFunction(() => window.hrvPromoted().tooltip);
  await setting("Comfy.VueNodes.Enabled", true);
  const field = page.locator("[role=combobox][aria-label=concept][aria-invalid=true]");
  await field.click();
  const offered = await page.locator("[role=option]").allInnerTexts();
  await page.locator("[role=option]").filter({ hasText: "Shape" }).click();
  await screenshot("menus-promoted");
  await setting("Comfy.VueNodes.Enabled", false);
  return { mark: await mark.jsonValue(), offered: offered.map((text) => text.trim()), queued: await queued(page, CONTROL) };
}

/** What a heat map's menu offers behind other nodes than Load HRV. */
async function sources(page, load, workflow) {
  await load("sources", workflow);
  await page.evaluate(() => {
    app.rootGraph.clear();
    const pick = addNode("HRV_PickConcepts", [0, 0], { concepts: "Size, Color" });
    addNode("HRV_Load", [0, 0], { file: "hrv-mini.safetensors" }).connect(0, pick, "hrv");
    const clamp = addNode("HRV_Clamp");
    pick.connect(0, clamp, "hrv");
    const build = addNode("HRV_Build");
    addNode("HRV_Concepts", [0, 0], { concepts: "Mood: happy, sad\nWeather: rain, sun" }).connect(0, build, "concepts");
    const merge = addNode("HRV_Merge");
    clamp.connect(0, merge, 0);
    build.connect(0, merge, 1);
    merge.connect(0, addNode("HRV_Rank"), "hrv");
    addNode("HRV_Published").connect(0, addNode("HRV_QuickCheck"), "hrv");
    addNode("HRV_HeatMap");
    addNode("HRV_ScorerMini").connect(0, addNode("HRV_Score"), "scorer");
  });
  return {
    weakening: await weakening(page),
    merged: await offered(page, "HRV_Rank", "concepts", "Weather"),
    published: (await offered(page, "HRV_QuickCheck", "concepts", "Animals")).length,
    scorer: await offered(page, "HRV_Score", "concept", "Plants"),
    unconnected: await offered(page, "HRV_HeatMap", "concepts", ""),
  };
}

/** How a Quick Check weakens heads: a new one, one of a saved graph, and one of a graph from before there was a choice. */
function weakening(page) {
  return page.evaluate(() => {
    const field = (node) => node.widgets.findIndex((widget) => widget.name === "weakening");
    const added = app.rootGraph.nodes.find((node) => node.type === "HRV_QuickCheck");
    const configured = (change) => {
      const saved = added.serialize();
      change(saved.widgets_values);
      const node = addNode("HRV_QuickCheck");
      node.configure({ ...saved, id: node.id });
      return node.widgets[field(node)].value;
    };
    const place = field(added);
    return {
      added: added.widgets[place].value,
      saved: configured((values) => (values[place] = "the paper's -2")),
      copied: configured(() => {}),
      older: configured((values) => values.splice(place)),
    };
  });
}

/** Several concepts are taken one after the other, and a name is typed. */
async function several(page, screenshot) {
  await page.evaluate(() => {
    app.rootGraph.clear();
    const load = addNode("HRV_Load");
    const map = addNode("HRV_HeatMap", [400, 0]);
    load.connect(0, map, "hrv");
    app.canvas.ds.reset();
    app.canvas.centerOnNode(map);
  });
  await offered(page, "HRV_HeatMap", "concepts", "Size");
  await choose(page, "classic", "HRV_HeatMap", "concepts", "Siz", "Size");
  await offered(page, "HRV_HeatMap", "concepts", "Size, Color");
  await choose(page, "classic", "HRV_HeatMap", "concepts", "Col", "Color");
  const chosen = await queued(page, "HRV_HeatMap", "concepts");
  await offered(page, "HRV_HeatMap", "concepts", "Color");
  await choose(page, "classic", "HRV_HeatMap", "concepts", "type", "… type");
  const field = page.getByRole("dialog").locator("input");
  await field.fill("Weather");
  await screenshot("menus-type-a-name");
  await page.keyboard.press("Enter");
  await offered(page, "HRV_HeatMap", "concepts", "Weather, Color");
  return { chosen, typed: await queued(page, "HRV_HeatMap", "concepts") };
}
