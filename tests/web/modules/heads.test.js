import assert from "node:assert/strict";
import { test } from "node:test";

import { arrange, cellOf, gridOf, headAt, neighbour } from "../../../web/hrv/head_grid.js";
import { difference, headName, ranks, readHRV, toCSV, topConcepts } from "../../../web/hrv/heads.js";
import { differenceScale, rampColor, scaleOf } from "../../../web/hrv/scales.js";

const LAYOUT = [["input", 1, 0, 2], ["input", 2, 0, 1], ["middle", 0, 0, 2], ["output", 3, 0, 2]]; // prettier-ignore
const NAMES = ["down1.0", "down2.0", "mid.0", "up3.0"];

/** An HRV as the server sends it, with 7 heads. */
function hrvOf(rows, concepts = rows.map((_, row) => `C${row}`), layout = LAYOUT, names = NAMES) {
  const values = Buffer.from(Float32Array.from(rows.flat()).buffer).toString("base64");
  return readHRV({ concepts, layout, names, values });
}

/** SDXL's layers: 1300 heads in 70 layers. */
function sdxl() {
  const depths = [["input", 4, 2, 10], ["input", 5, 2, 10], ["input", 7, 10, 20], ["input", 8, 10, 20], ["middle", 0, 10, 20]]; // prettier-ignore
  depths.push(["output", 0, 10, 20], ["output", 1, 10, 20], ["output", 2, 10, 20], ["output", 3, 2, 10], ["output", 4, 2, 10], ["output", 5, 2, 10]); // prettier-ignore
  const layout = depths.flatMap(([block, id, depth, heads]) => Array.from({ length: depth }, (_, i) => [block, id, i, heads]));
  const section = { input: "down", middle: "mid", output: "up" };
  const names = layout.map(([block, id, i]) => `${section[block]}${block === "middle" ? "" : id}.${i}`);
  return hrvOf([Array.from({ length: 1300 }, (_, head) => head / 650)], ["C"], layout, names);
}

test("values come as they were sent", () => {
  const hrv = hrvOf([[0, 0.5, 1, 2, 28, 3, 1e-3], [7, 6, 5, 4, 3, 2, 1]]);
  assert.equal(hrv.headCount, 7);
  assert.deepEqual([...hrv.rows[0]], [...Float32Array.from([0, 0.5, 1, 2, 28, 3, 1e-3])]);
  assert.deepEqual([...hrv.rows[1]], [7, 6, 5, 4, 3, 2, 1]);
});

test("layouts of transformers carry their family", () => {
  const layout = { family: "flux", layers: [["double", 0, 0, 2], ["double", 1, 0, 2], ["single", 0, 0, 3]] }; // prettier-ignore
  const hrv = hrvOf([[0, 1, 2, 3, 4, 5, 6]], ["C"], layout, ["double0", "double1", "single0"]);
  assert.equal(hrv.layout, layout);
  assert.deepEqual([0, 3, 6].map((position) => headName(hrv, position)), [
    { layer: "double0", head: 0 },
    { layer: "double1", head: 1 },
    { layer: "single0", head: 2 },
  ]);
  const { blocks, height } = gridOf(hrv.layers);
  assert.deepEqual(blocks.map(({ name }) => name), ["double0", "double1", "single0"]);
  assert.ok(height > 3); // the two kinds of blocks are set apart
});

test("head positions have names, ranks and concepts", () => {
  const hrv = hrvOf([[0, 0, 1, 2, 0, 2, 0], [7, 6, 5, 4, 3, 2, 1]], ["A", "B"]);
  assert.deepEqual([0, 1, 2, 3, 6].map((position) => headName(hrv, position)), [
    { layer: "down1.0", head: 0 },
    { layer: "down1.0", head: 1 },
    { layer: "down2.0", head: 0 },
    { layer: "mid.0", head: 0 },
    { layer: "up3.0", head: 1 },
  ]);
  assert.deepEqual([...ranks(hrv.rows[0])], [4, 5, 3, 1, 6, 2, 7]);
  assert.deepEqual(topConcepts(hrv, 2, 2), [{ concept: "B", value: 5 }, { concept: "A", value: 1 }]);
});

test("a difference is that of the concepts of both, for the same heads only", () => {
  const one = hrvOf([[1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 0, 0, 0, 0]], ["Good Mood", "B"]);
  const other = hrvOf([[7, 6, 5, 4, 3, 2, 1]], ["good  mood"]);
  const found = difference(one, other);
  assert.deepEqual(found.concepts, ["Good Mood"]);
  assert.deepEqual([...found.rows[0]], [-6, -4, -2, 0, 2, 4, 6]);
  assert.equal(difference(one, hrvOf([[1, 2, 3, 4, 5, 6, 7]], ["X"])), null);
  assert.equal(difference(one, sdxl()), null);
});

test("a table has a line for each head and quotes names", () => {
  const lines = toCSV(hrvOf([[1, 2, 3, 4, 5, 6, 7]], ['A "b", c']), [0]).split("\r\n");
  assert.equal(lines.length, 1 + 7 + 1);
  assert.equal(lines[3], '"A ""b"", c",down2.0,0,2,3,5');
});

test("the ramp's ends and middle are those of the pack's pictures", () => {
  assert.deepEqual([-1, 0, 1, -7, 7].map(rampColor), ["rgb(50, 98, 169)", "rgb(241, 240, 236)", "rgb(104, 24, 15)", "rgb(50, 98, 169)", "rgb(104, 24, 15)"]); // prettier-ignore
});

test("scales put the lowest, the average and the highest where they belong", () => {
  const row = [0, 0.5, 1, 2, 4];
  assert.deepEqual(scaleOf("relevance", [row]).places(row), [-1, -0.5, 0, 0.5, 1]);
  assert.deepEqual(scaleOf("linear", [row]).places(row), [-1, -0.75, -0.5, 0, 1]);
  assert.deepEqual(scaleOf("rank", [row]).places(row), [-1, -0.5, 0, 0.5, 1]);
  assert.deepEqual(differenceScale([[-3, 0, 3]]).places([-3, 0, 3]), [-1, 0, 1]);
  for (const name of ["relevance", "linear"]) {
    assert.ok(scaleOf(name, [[0, 0]]).places([0, 0]).every(Number.isFinite));
    assert.ok(scaleOf(name, [row]).ticks.every(({ place }) => place >= -1 && place <= 1));
  }
  assert.ok(differenceScale([[0, 0]]).places([0, 0]).every(Number.isFinite));
});

test("a few heads of 28 leave small ones legible", () => {
  const row = [...Array.from({ length: 125 }, (_, head) => head / 62), 20, 24, 28];
  const scale = scaleOf("relevance", [row]);
  const [small, double] = scale.places([0.25, 2]);
  assert.ok(small < -0.7 && double >= 0.2);
  assert.deepEqual(scale.ticks.map(({ text }) => text), ["0", "0.5", "1", "2", "4", "8", "16", "32"]);
});

test("every head has a cell of its own, and a point in it finds it again", () => {
  for (const hrv of [hrvOf([[1, 2, 3, 4, 5, 6, 7]]), sdxl()]) {
    const grid = gridOf(hrv.layers);
    for (const [panels, width, height] of [[1, 300, 200], [7, 300, 200], [34, 1200, 800]]) {
      const arrangement = arrange(grid, panels, width, height);
      for (const panel of [0, panels - 1]) {
        for (let position = 0; position < hrv.headCount; position++) {
          const cell = cellOf(arrangement, panel, position);
          assert.ok(cell.x >= arrangement.left - 1e-6 && cell.x + cell.width <= width + 1e-6);
          assert.ok(cell.y >= 0 && cell.y + cell.height <= height + 1e-6);
          const found = headAt(arrangement, cell.x + cell.width / 2, cell.y + cell.height / 2);
          assert.deepEqual(found, { panel, position });
        }
      }
      assert.equal(headAt(arrangement, 1, 1), null);
    }
  }
});

test("sections are set apart, and so are blocks of several layers", () => {
  const gaps = (hrv) => gridOf(hrv.layers).rows.slice(1).map(({ y }, number) => y - 1 - gridOf(hrv.layers).rows[number].y);
  assert.deepEqual(gaps(hrvOf([[1, 2, 3, 4, 5, 6, 7]])).map((gap) => gap > 0.5), [false, true, true]);
  assert.equal(gaps(sdxl()).filter((gap) => gap > 0.01).length, 10);
});

test("neighbours stay inside the model", () => {
  const grid = gridOf(hrvOf([[1, 2, 3, 4, 5, 6, 7]]).layers);
  assert.equal(neighbour(grid, 0, 1, 0), 1);
  assert.equal(neighbour(grid, 1, 1, 0), 1);
  assert.equal(neighbour(grid, 1, 0, 1), 2); // a layer of one head
  assert.equal(neighbour(grid, 0, -1, -1), 0);
  assert.equal(neighbour(grid, 6, 0, 1), 6);
});
