import assert from "node:assert/strict";
import { test } from "node:test";

import { closest, fold, joinNames, nameComplaint, splitNames, toggledName } from "../../../web/hrv/names.js";

test("names are compared without case and spacing", () => {
  assert.equal(fold("  Good \t Mood "), "good mood");
  assert.equal(fold("STRASSE"), fold("Straße"));
});

test("fields are read as the nodes read them, and written so that they are read again", () => {
  assert.deepEqual(splitNames(" Color, ,Red\\, green ,"), ["Color", "Red, green"]);
  for (const names of [[], ["Color"], ["Red, green", "Size"]]) assert.deepEqual(splitNames(joinNames(names)), names);
});

test("a name is added at the end or taken away", () => {
  assert.equal(toggledName("", "Size"), "Size");
  assert.equal(toggledName("Color,Shape", "Size"), "Color, Shape, Size");
  assert.equal(toggledName("Color, shape, Size", "Shape"), "Color, Size");
  assert.equal(toggledName("Color", "color"), "");
});

test("a complaint names what is unknown and what was likely meant", () => {
  const concepts = ["Color", "Shape", "Facial Expression"];
  assert.equal(nameComplaint(["color", "SHAPE"], concepts), null);
  assert.equal(nameComplaint([], concepts), null);
  assert.equal(nameComplaint(["Colour"], concepts), "There is no concept 'Colour' in this HRV. Did you mean Color?");
  assert.equal(nameComplaint(["Weather"], concepts), "There is no concept 'Weather' in this HRV.");
  assert.equal(closest("facial expresion", concepts), "Facial Expression");
  assert.equal(closest("x", []), null);
});
