import assert from "node:assert/strict";
import { test } from "node:test";

import { recipeOfInput } from "../../../web/hrv/recipes.js";
import { graphOf, nodeOf } from "./graphs.js";

const TAKER = 99;

/** The recipe of what the node `taken` gives, in a graph of some nodes with their links. */
function recipe(nodes, links, taken, { values = true, runs = {} } = {}) {
  const taker = nodeOf(TAKER, "Taker", ["hrv"]);
  const graph = graphOf([...nodes, taker]);
  for (const [from, to, input] of [...links, [taken, TAKER, "hrv"]]) graph.wire(from, 0, to, input);
  const place = { path: [], node: taker };
  return recipeOfInput(place, "hrv", { values, lastRun: ({ node }) => runs[node.id] });
}

const load = (id, file) => nodeOf(id, "HRV_Load", [], ["hrv:HRV"], { values: { file } });
const A = { from: "file", name: "a" };
const B = { from: "file", name: "b" };

test("files and published HRVs are named", () => {
  assert.deepEqual(recipe([load(1, "a")], [], 1), A);
  const published = nodeOf(1, "HRV_Published", [], ["hrv:HRV"], { values: { name: "sdxl", download: false } });
  assert.deepEqual(recipe([published], [], 1), { from: "published", name: "sdxl" });
});

test("arithmetic holds the recipes of its inputs", () => {
  const pick = nodeOf(3, "HRV_PickConcepts", ["hrv"], ["hrv:HRV"], { values: { concepts: "Size, Color" } });
  const clamp = nodeOf(4, "HRV_Clamp", ["hrv"], ["hrv:HRV"], { values: { limit: 9 } });
  const merge = nodeOf(5, "HRV_Merge", ["hrvs.hrv0", "hrvs.hrv1", "hrvs.hrv2"]);
  const links = [[1, 3, "hrv"], [3, 4, "hrv"], [4, 5, "hrvs.hrv0"], [2, 5, "hrvs.hrv1"]];
  assert.deepEqual(recipe([load(1, "a"), load(2, "b"), pick, clamp, merge], links, 5), {
    from: "merge",
    hrvs: [{ from: "clamp", hrv: { from: "pick", hrv: A, concepts: ["Size", "Color"] }, limit: 9 }, B],
  });
});

test("what has an unknown part is known from its last run, or not at all", () => {
  const foreign = nodeOf(1, "Foreign");
  const mean = nodeOf(3, "HRV_Mean", ["hrvs.hrv0", "hrvs.hrv1"]);
  const links = [[1, 3, "hrvs.hrv0"], [2, 3, "hrvs.hrv1"]];
  assert.equal(recipe([foreign, load(2, "b"), mean], links, 3), null);
  const run = { from: "run", digest: "d" };
  assert.deepEqual(recipe([foreign, load(2, "b"), mean], links, 3, { runs: { 3: "d" } }), run);
  assert.deepEqual(recipe([foreign, load(2, "b"), mean], links, 3, { runs: { 1: "d" } }), { from: "mean", hrvs: [run, B] });
  assert.equal(recipe([nodeOf(3, "HRV_Mean", ["hrvs.hrv0"])], [], 3), null);
});

test("a build has the names of its vocabulary, and values from a run", () => {
  const concepts = nodeOf(1, "HRV_Concepts", [], ["vocabulary:HRV_CONCEPTS"], { values: { concepts: "Color: red" } });
  const build = nodeOf(2, "HRV_Build", ["concepts:HRV_CONCEPTS"]);
  const graph = [[concepts, build], [[1, 2, "concepts"]], 2];
  assert.deepEqual(recipe(...graph, { values: false }), { from: "vocabulary", text: "Color: red" });
  assert.equal(recipe(...graph), null);
  assert.deepEqual(recipe(...graph, { runs: { 2: "d" } }), { from: "run", digest: "d" });
});

test("an import names its vocabulary if one is connected", () => {
  const words = nodeOf(1, "HRV_ImportConcepts", [], ["vocabulary:HRV_CONCEPTS"], { values: { file: "w.csv" } });
  const files = { vectors: "v.npy", head_index: "h.npy" };
  const npy = nodeOf(2, "HRV_ImportNpy", ["concepts:HRV_CONCEPTS"], ["hrv:HRV"], { values: files });
  assert.deepEqual(recipe([words, npy], [], 2), { from: "npy", ...files });
  assert.deepEqual(recipe([words, npy], [[1, 2, "concepts"]], 2), {
    from: "npy",
    ...files,
    vocabulary: { from: "words", file: "w.csv" },
  });
});

test("what is merged with itself again and again is known from its last run", () => {
  const merges = Array.from({ length: 40 }, (_, number) => nodeOf(number + 2, "HRV_Merge", ["hrvs.hrv0", "hrvs.hrv1"]));
  const links = merges.flatMap(({ id }) => [[id - 1, id, "hrvs.hrv0"], [id - 1, id, "hrvs.hrv1"]]);
  const nodes = [load(1, "a"), ...merges];
  assert.equal(recipe(nodes, links, 41), null);
  const run = { from: "run", digest: "d" };
  assert.deepEqual(recipe(nodes, links, 41, { runs: { 41: "d" } }), run);
  assert.deepEqual(recipe(nodes, links, 2), { from: "merge", hrvs: [A, A] });
});
