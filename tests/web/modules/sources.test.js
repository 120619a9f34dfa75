import assert from "node:assert/strict";
import { test } from "node:test";

import { executionId, placeOfExecution } from "../../../web/hrv/executed.js";
import { holderOf, nodesWithin, placesOf, sourceOf, widgetValue } from "../../../web/hrv/sources.js";
import { graphOf, nodeOf } from "./graphs.js";

/** The sources of the node "taker"'s input "hrv", as "path/id.slot". */
function found(root, node, input = "hrv") {
  const sources = placesOf(root, node).flatMap((place) => sourceOf(place, input) ?? []);
  return sources.map((source) => `${executionId(source)}.${source.slot}`);
}

test("a link leads to the output it comes from, and no link nowhere", () => {
  const taker = nodeOf(2, "Taker", ["hrv"]);
  const graph = graphOf([nodeOf(1, "HRV_Load"), taker]);
  assert.deepEqual(found(graph, taker), []);
  assert.deepEqual(found(graph, taker, "gone"), []);
  graph.wire(1, 1, 2, "hrv");
  assert.deepEqual(found(graph, taker), ["1.1"]);
});

test("a link whose node is gone leads nowhere", () => {
  const taker = nodeOf(2, "Taker", ["hrv"]);
  assert.deepEqual(found(graphOf([taker]).wire(1, 0, 2, "hrv"), taker), []);
});

test("reroute nodes are seen through, and a ring of them ends", () => {
  const taker = nodeOf(4, "Taker", ["hrv"]);
  const reroute = (id) => nodeOf(id, "Reroute", ["in:*"], ["out:*"], { isVirtualNode: true });
  const graph = graphOf([nodeOf(1, "HRV_Load"), reroute(2), reroute(3), taker]);
  graph.wire(2, 0, 3, "in").wire(3, 0, 4, "hrv").wire(1, 0, 2, "in");
  assert.deepEqual(found(graph, taker), ["1.0"]);
  graph.wire(3, 0, 2, "in");
  assert.deepEqual(found(graph, taker), []);
});

test("virtual nodes of other packs are asked for what they hand on", () => {
  const load = nodeOf(1, "HRV_Load");
  const taker = nodeOf(4, "Taker", ["hrv", "other"]);
  const resolving = nodeOf(2, "Get", [], ["out:*"], {
    isVirtualNode: true,
    resolveVirtualOutput: () => ({ node: load, slot: 0 }),
  });
  const linking = nodeOf(3, "Get", [], ["out:*"], {
    isVirtualNode: true,
    getInputLink: () => ({ origin_id: 1, origin_slot: 0 }),
  });
  const graph = graphOf([load, resolving, linking, taker]).wire(2, 0, 4, "hrv").wire(3, 0, 4, "other");
  assert.deepEqual(found(graph, taker, "hrv"), ["1.0"]);
  assert.deepEqual(found(graph, taker, "other"), ["1.0"]);
});

test("a muted node gives nothing, a bypassed one its input of the same type", () => {
  const control = nodeOf(3, "Control", ["model:MODEL", "a:HRV", "b:HRV"], ["hrv:HRV", "b:HRV"]);
  const taker = nodeOf(4, "Taker", ["hrv"]);
  const graph = graphOf([nodeOf(1, "HRV_Load"), nodeOf(2, "HRV_Load"), control, taker]);
  graph.wire(1, 0, 3, "a").wire(2, 0, 3, "b").wire(3, 0, 4, "hrv");
  assert.deepEqual(found(graph, taker), ["3.0"]);
  control.mode = 4;
  assert.deepEqual(found(graph, taker), ["1.0"]);
  control.inputs.reverse(); // now the type is right at the same place
  assert.deepEqual(found(graph, taker), ["2.0"]);
  control.inputs = [];
  assert.deepEqual(found(graph, taker), []);
  control.mode = 2;
  assert.deepEqual(found(graph, taker), []);
});

/** A subgraph that takes an HRV and hands it on, and one that holds it. */
function nested() {
  const inner = nodeOf(7, "Taker", ["hrv"], ["hrv:HRV"]);
  const deep = graphOf([inner], { inputs: ["hrv"], outputs: ["hrv"] }).wire("-10", 0, 7, "hrv").wire(-10, 0, -20, "hrv");
  const middle = nodeOf(5, "deep", ["hrv"], ["hrv:HRV"], { subgraph: deep });
  const outer = graphOf([middle], { inputs: ["hrv"], outputs: ["hrv"] }).wire(-10, 0, 5, "hrv").wire(5, 0, -20, "hrv");
  return { inner, deep, outer };
}

test("subgraphs are seen through from inside and from outside, at any depth", () => {
  const { inner, outer } = nested();
  const taker = nodeOf(3, "Taker", ["hrv"]);
  const graph = graphOf([nodeOf(1, "HRV_Load"), nodeOf(2, "outer", ["hrv"], ["hrv:HRV"], { subgraph: outer }), taker]);
  graph.wire(2, 0, 3, "hrv");
  assert.deepEqual(found(graph, inner), []);
  assert.deepEqual(found(graph, taker), []);
  graph.wire(1, 0, 2, "hrv");
  assert.deepEqual(found(graph, inner), ["1.0"]);
  assert.deepEqual(found(graph, taker), ["1.0"]);
});

test("a source inside a subgraph has the subgraph's node in its path", () => {
  const inside = graphOf([nodeOf(9, "HRV_Load")], { outputs: ["hrv"] }).wire(9, 0, -20, "hrv");
  const taker = nodeOf(3, "Taker", ["hrv"]);
  const graph = graphOf([nodeOf(2, "inside", [], ["hrv:HRV"], { subgraph: inside }), taker]).wire(2, 0, 3, "hrv");
  assert.deepEqual(found(graph, taker), ["2:9.0"]);
});

test("a node of a subgraph that is used twice has two sources", () => {
  const { inner, deep } = nested();
  const uses = [3, 4].map((id) => nodeOf(id, "deep", ["hrv"], ["hrv:HRV"], { subgraph: deep }));
  const graph = graphOf([nodeOf(1, "HRV_Load"), nodeOf(2, "HRV_Load"), ...uses]);
  graph.wire(1, 0, 3, "hrv").wire(2, 0, 4, "hrv");
  assert.deepEqual(found(graph, inner), ["1.0", "2.0"]);
});

test("a widget's value comes from the widget, a primitive, or the subgraph's node", () => {
  const load = nodeOf(9, "HRV_Load", ["file:COMBO"], ["hrv:HRV"], { values: { file: "own" } });
  const inside = graphOf([load], { inputs: ["name"] });
  const use = nodeOf(2, "inside", ["name:COMBO"], [], { subgraph: inside, values: { name: "outer" } });
  const primitive = nodeOf(1, "PrimitiveString", [], ["out:STRING"], { values: { value: "primitive" } });
  const computing = nodeOf(3, "Concatenate", [], ["out:STRING"], { values: { value: "no" } });
  const graph = graphOf([primitive, use, computing]);
  const place = { path: [use], node: load };
  assert.equal(widgetValue(place, "file"), "own");
  assert.equal(widgetValue(place, "gone"), undefined);
  assert.deepEqual(holderOf(place, "file"), { node: load, name: "file" });
  inside.wire(-10, 0, 9, "file");
  assert.equal(widgetValue(place, "file"), "outer");
  assert.deepEqual(holderOf(place, "file"), { node: use, name: "name" });
  graph.wire(1, 0, 2, "name");
  assert.equal(widgetValue(place, "file"), "primitive");
  assert.equal(holderOf(place, "file"), null);
  graph.wire(3, 0, 2, "name");
  assert.equal(widgetValue(place, "file"), undefined);
});

test("ids of a run are paths through subgraphs", () => {
  const { outer } = nested();
  const graph = graphOf([nodeOf(2, "outer", ["hrv"], ["hrv:HRV"], { subgraph: outer })]);
  for (const id of ["2", "2:5", "2:5:7"]) assert.equal(executionId(placeOfExecution(graph, id)), id);
  for (const id of ["1", "2:7", "2:5:7:1", ""]) assert.equal(placeOfExecution(graph, id), null);
});

test("nodes are found in subgraphs of any depth, each once however often its subgraph is used", () => {
  const { inner, deep, outer } = nested();
  const uses = [3, 4].map((id) => nodeOf(id, "deep", ["hrv"], ["hrv:HRV"], { subgraph: deep }));
  const graph = graphOf([...uses, nodeOf(2, "outer", ["hrv"], ["hrv:HRV"], { subgraph: outer })]);
  const ids = nodesWithin(graph).map(({ id }) => id);
  assert.deepEqual(ids.filter((id) => id === inner.id), [inner.id]);
  assert.equal(ids.length, 3 + 2);
});
