import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { describeStatus } from "../../../web/hrv/status.js";
import { say, setTranslations, told } from "../../../web/hrv/texts.js";

afterEach(() => setTranslations({}));

test("without a translation a text is said as it is, with its values", () => {
  assert.equal(say("Not run yet."), "Not run yet.");
  assert.equal(say("{node} has {count} heads.", { node: "{count}", count: 3 }), "{count} has 3 heads.");
  assert.equal(say("{unknown} stays"), "{unknown} stays");
});

test("a translation may put values in another order", () => {
  setTranslations({ "{done} of {total} {unit}": "{unit} {total} / {done}", images: "Bilder" });
  assert.equal(say("{done} of {total} {unit}", { done: 1, total: 2, unit: told("images") }), "Bilder 2 / 1");
  assert.equal(say("Not run yet."), "Not run yet.");
});

test("texts of the server are translated as far as they are known", () => {
  setTranslations({ images: "Bilder", "agreement {value}": "Einigkeit {value}", "{count} workers, {speed} {unit}/s": "{count}: {speed} {unit}/s", "score of {concept}": "Wert von {concept}" }); // prettier-ignore
  assert.equal(told("agreement 0.953, 2 workers, 3.1 images/s"), "Einigkeit 0.953, 2: 3.1 Bilder/s");
  assert.equal(told("score of images"), "Wert von images");
  assert.equal(told("Geometric Patterns"), "Geometric Patterns");
});

test("a status is said in the page's language", () => {
  const status = { workflow: "", node: "", kind: "build", unit: "images", done: 2, total: 8, kept: false, detail: "agreement 0.9", curves: null, hrv: null, at: 0 }; // prettier-ignore
  setTranslations({ "{done} of {total} {unit}": "{unit} {done}/{total}", images: "画像", "{time} left": "残り {time}", ", ": "、", "agreement {value}": "一致度 {value}", Cancelled: "中止", "{stopped} after {done} of {total} {unit}.": "{stopped}（{unit} {done}/{total}）" }); // prettier-ignore
  assert.equal(describeStatus({ ...status, state: "running", seconds: 61 }), "画像 2/8、一致度 0.9、残り 1:01");
  assert.equal(describeStatus({ ...status, state: "cancelled", seconds: null }), "中止（画像 2/8）");
});
