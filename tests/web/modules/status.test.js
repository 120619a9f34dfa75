import assert from "node:assert/strict";
import { test } from "node:test";

import { aligned, describeStatus, later } from "../../../web/hrv/status.js";

const build = { state: "running", done: 4, total: 16, unit: "images", detail: "agreement 0.981", seconds: 3661, kept: true, at: 1 };

test("a status is a sentence", () => {
  assert.equal(describeStatus(build), "4 of 16 images, agreement 0.981, 1:01:01 left");
  assert.equal(describeStatus({ ...build, seconds: null, detail: "" }), "4 of 16 images");
  assert.equal(describeStatus({ ...build, seconds: 59.6, detail: "" }), "4 of 16 images, 1:00 left");
  assert.equal(describeStatus({ ...build, state: "done", done: 16 }), "Done: 16 images.");
  assert.equal(describeStatus({ ...build, state: "done" }), "Done after 4 of 16 images.");
});

test("work that stopped says what is kept", () => {
  assert.equal(
    describeStatus({ ...build, state: "cancelled" }),
    "Cancelled: 4 of 16 images kept. The same settings resume from there.",
  );
  assert.match(describeStatus({ ...build, state: "interrupted" }), /^Interrupted as ComfyUI stopped: 4 of 16 images kept\./);
  assert.equal(describeStatus({ ...build, state: "failed", kept: false }), "Stopped by an error after 4 of 16 images.");
  assert.equal(describeStatus({ ...build, state: "cancelled", done: 0 }), "Cancelled after 0 of 16 images.");
});

test("the later status counts", () => {
  const after = { ...build, at: 2 };
  assert.equal(later(build, after), after);
  assert.equal(later(after, build), after);
  assert.equal(later(undefined, build), build);
  assert.equal(later(build, undefined), build);
  assert.equal(later(undefined, undefined), undefined);
});

test("curves over other places share one axis", () => {
  const curves = [
    { name: "one", across: [1, 3], up: [0.1, null] },
    { name: "other", across: [2, 3], up: [0.2, 0.3] },
  ];
  assert.deepEqual(aligned({ across: "images", up: "agreement", curves }), [
    [1, 2, 3],
    [0.1, null, null],
    [null, 0.2, 0.3],
  ]);
});
