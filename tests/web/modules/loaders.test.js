import assert from "node:assert/strict";
import { test } from "node:test";

import { loaderBehind } from "../../../web/hrv/loaders.js";
import { graphOf, nodeOf } from "./graphs.js";

const ENCODER = 99;
const ENCODES = () => nodeOf(ENCODER, "HRV_TextEncode", ["clip:CLIP"], ["conditioning:CONDITIONING"]);
const LOADS = { node: "CLIPLoader", widgets: { clip_name: "t5.safetensors", type: "chroma" } };
const loads = (id, rest = {}) => nodeOf(id, "CLIPLoader", [], ["clip:CLIP"], { values: LOADS.widgets, ...rest });
const changes = (id, type, inputs = ["clip:CLIP"], rest = {}) => nodeOf(id, type, inputs, ["clip:CLIP"], rest);

/** The loader behind the encoder in a graph of some nodes and links, of which the node `taken` gives it its CLIP. */
function loader(nodes, links, taken) {
  const encoder = ENCODES();
  const graph = graphOf([...nodes, encoder]);
  for (const [from, to, input] of [...links, [taken, ENCODER, "clip"]]) graph.wire(from, 0, to, input);
  return loaderBehind({ path: [], node: encoder });
}

test("a loader is told with its class and the texts of its widgets", () => {
  assert.deepEqual(loader([loads(1)], [], 1), LOADS);
  const several = nodeOf(1, "Other", [], ["clip:CLIP"], { values: { name: "a", number: 3, switch: true } });
  assert.deepEqual(loader([several], [], 1), { node: "Other", widgets: { name: "a" } });
});

test("nodes that take a CLIP and give one are seen through, also bypassed", () => {
  const lora = changes(2, "LoraLoader", ["model:MODEL", "clip:CLIP"], { values: { lora_name: "a" } });
  const layer = changes(3, "CLIPSetLastLayer", ["clip:CLIP"], { values: { stop_at_clip_layer: -2 } });
  const links = [[1, 2, "clip"], [2, 3, "clip"]];
  assert.deepEqual(loader([loads(1), lora, layer], links, 3), LOADS);
  lora.mode = 4;
  assert.deepEqual(loader([loads(1), lora, layer], links, 3), LOADS);
  lora.mode = 2;
  assert.equal(loader([loads(1), lora, layer], links, 3), null);
});

test("merged text encoders have the tokens of the first, and others of several are not known", () => {
  const other = nodeOf(2, "CLIPLoader", [], ["clip:CLIP"], { values: { clip_name: "b", type: "wan" } });
  const links = [[2, 3, "clip2"], [1, 3, "clip1"]];
  for (const type of ["CLIPMergeSimple", "CLIPMergeAdd", "CLIPMergeSubtract"]) {
    assert.deepEqual(loader([loads(1), other, changes(3, type, ["clip2:CLIP", "clip1:CLIP"])], links, 3), LOADS);
    assert.equal(loader([other, changes(3, type, ["clip2:CLIP", "clip1:CLIP"])], [[2, 3, "clip2"]], 3), null);
  }
  assert.equal(loader([loads(1), other, changes(3, "Switch", ["clip2:CLIP", "clip1:CLIP"])], links, 3), null);
});

test("what is not told by the graph is not known", () => {
  assert.equal(loaderBehind({ path: [], node: graphOf([ENCODES()]).nodes[0] }), null);
  assert.equal(loader([loads(1, { mode: 2 })], [], 1), null);
  assert.equal(loader([loads(1), changes(2, "T5TokenizerOptions")], [[1, 2, "clip"]], 2), null);
  assert.equal(loader([loads(1, { values: { clip_name: "a", type: undefined } })], [], 1), null);
});

test("a ring of nodes ends", () => {
  const links = [[1, 2, "clip"], [2, 1, "clip"]];
  assert.equal(loader([changes(1, "LoraLoader"), changes(2, "LoraLoader")], links, 1), null);
});

test("loaders are found behind subgraphs, with the values of the widgets that are promoted there", () => {
  const inner = loads(1);
  inner.inputs = [{ name: "clip_name", type: "COMBO", link: null, widget: { name: "clip_name" } }];
  const subgraph = graphOf([inner], { inputs: ["file"], outputs: ["clip"] }).wire(-10, 0, 1, "clip_name").wire(1, 0, -20, "clip");
  const holder = nodeOf(5, "Subgraph", ["file:COMBO"], ["clip:CLIP"], { subgraph, values: { file: "outer.safetensors" } });
  assert.deepEqual(loader([holder], [], 5), { node: "CLIPLoader", widgets: { ...LOADS.widgets, clip_name: "outer.safetensors" } });
});

test("an encoder inside a subgraph takes the loader outside", () => {
  const encoder = nodeOf(1, "HRV_TextEncode", ["clip:CLIP"], ["conditioning:CONDITIONING"]);
  const subgraph = graphOf([encoder], { inputs: ["clip"], outputs: [] }).wire(-10, 0, 1, "clip");
  const holder = nodeOf(5, "Subgraph", ["clip:CLIP"], [], { subgraph });
  graphOf([loads(2), holder]).wire(2, 0, 5, "clip");
  assert.deepEqual(loaderBehind({ path: [holder], node: encoder }), LOADS);
});
