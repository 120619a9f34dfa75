// Takes a screenshot of every node as the page draws it, alone on the canvas; make_node_pictures.py starts this.
//
//   node node_pictures.mjs ADDRESS BROWSER FOLDER NODE_CLASS...
//
// FOLDER gets NODE_CLASS.png for each, and the browser's profile.

import path from "node:path";

import { openBrowser } from "./launcher/browser.mjs";

const [address, browser, folder, ...nodeClasses] = process.argv.slice(2);
const START_MS = 120_000;
const PLACE = [400, 180]; // on the screen, clear of the page's bars
const WIDTH = 270; // at least, so that titles are whole
const TITLE = 30;
const MARGIN = 12;

const context = await openBrowser(browser, path.join(folder, "profile"), {
  viewport: { width: 1200, height: 1200 },
  deviceScaleFactor: 1.5,
});
try {
  const [page] = context.pages();
  const settings = {
    "Comfy.TutorialCompleted": true,
    "Comfy.VueNodes.Enabled": false,
    "Comfy.Minimap.Visible": false,
    "Comfy.NodeBadge.NodeSourceBadgeMode": "None",
  };
  await page.request.post(`http://${address}/api/settings`, { data: settings });
  await page.goto(`http://${address}/`);
  await page.waitForFunction(() => window.app?.extensionManager?.workflow && window.app.rootGraph?.nodes.length, null, {
    timeout: START_MS,
  });
  for (const nodeClass of nodeClasses) {
    const [width, height] = await page.evaluate(show, [nodeClass, PLACE, WIDTH]);
    const clip = {
      x: PLACE[0] - MARGIN,
      y: PLACE[1] - TITLE - MARGIN,
      width: width + 2 * MARGIN,
      height: height + TITLE + 2 * MARGIN,
    };
    await settled(page, clip, path.join(folder, `${nodeClass}.png`));
  }
} finally {
  await context.close();
}

// Loads a graph of one new node, without a background; its size. Loaded nodes have their panels closed.
async function show([nodeClass, place, width]) {
  const node = LiteGraph.createNode(nodeClass);
  node.id = 1;
  node.pos = [0, 0];
  node.setSize([Math.max(width, node.size[0]), node.size[1]]);
  const graph = { last_node_id: 1, last_link_id: 0, nodes: [node.serialize()], links: [], groups: [], config: {}, version: 0.4 };
  await app.loadGraphData(graph, true, true, "picture");
  app.canvas.background_image = "";
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = place;
  app.canvas.setDirty(true, true);
  return [...app.rootGraph.nodes[0].size];
}

// A screenshot once two in a row are alike: fonts and the elements of widgets come after the canvas.
async function settled(page, clip, file) {
  let before = Buffer.alloc(0);
  for (;;) {
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 150))));
    const picture = await page.screenshot({ clip, path: file });
    if (picture.equals(before)) return;
    before = picture;
  }
}
