import assert from "node:assert/strict";
import { test } from "node:test";

import { conceptChoices, menuEntries, typeAName, wordChoices } from "../../../web/hrv/menu_entries.js";

const CONCEPTS = ["Color", "Shape", "Size"];
const ALL = { several: true, empty: "all concepts" };

/** The entries before the last, as "option" or "option = label". */
function entries(value, concepts, field) {
  const { complaint, options } = menuEntries(value, concepts && conceptChoices(concepts), field);
  assert.equal(options.at(-1).option, typeAName());
  const shown = options.slice(0, -1).map(({ option, label }) => (option === label ? option : `${option} = ${label}`));
  return { complaint, shown };
}

test("one name is chosen among the concepts, and keeps its spelling", () => {
  assert.deepEqual(entries("Size", CONCEPTS, {}), { complaint: null, shown: CONCEPTS });
  assert.deepEqual(entries("size", CONCEPTS, {}), { complaint: null, shown: ["Color", "Shape", "size"] });
});

test("an unknown name is complained about and not among the entries", () => {
  const { complaint, shown } = entries("Colour", CONCEPTS, {});
  assert.match(complaint, /Did you mean Color/);
  assert.deepEqual(shown, CONCEPTS);
  assert.match(entries("", CONCEPTS, {}).complaint, /There is no concept ''/);
});

test("while concepts are not known, the value is the only entry and right", () => {
  assert.deepEqual(entries("Colour", null, {}), { complaint: null, shown: ["Colour"] });
  assert.deepEqual(entries("Colour", null, ALL), { complaint: null, shown: [" = all concepts", "Colour"] });
});

test("of several names each entry adds or takes away one", () => {
  assert.deepEqual(entries("Shape, Color", CONCEPTS, ALL), {
    complaint: null,
    shown: [" = all concepts", "Shape, Color", "Shape = ✓ Color", "Color = ✓ Shape", "Shape, Color, Size = Size"],
  });
  assert.deepEqual(entries("", CONCEPTS, ALL), { complaint: null, shown: [" = all concepts", ...CONCEPTS] });
});

test("of several names one unknown is enough, and none at all where some are needed", () => {
  const { complaint, shown } = entries("Color, Weather", CONCEPTS, ALL);
  assert.match(complaint, /'Weather'/);
  assert.ok(!shown.includes("Color, Weather"));
  assert.equal(shown.at(-1), "Color = ✗ Weather");
  assert.equal(entries("", CONCEPTS, { several: true }).complaint, null);
});

test("words are taken one by one, all at once, or none with a notice", () => {
  const field = { several: true, empty: "no words: no effect", all: "all words" };
  const choices = wordChoices([["a", "red", "vase", ","]]);
  const shown = (value) =>
    menuEntries(value, choices, field).options.map(({ option, label }) => (option === label ? option : `${option} = ${label}`));
  const always = [" = no words: no effect", "* = all words"];
  assert.deepEqual(shown(""), [...always, "a", "red", "vase", typeAName()]);
  assert.deepEqual(shown("*"), [...always, "a", "red", "vase", typeAName()]);
  assert.deepEqual(shown("red"), [...always, "red", "red, a = a", "red, vase = vase", typeAName()]);
  assert.equal(menuEntries("*", choices, field).complaint, null);
  assert.equal(menuEntries("red vase", choices, field).complaint, null);
  assert.match(menuEntries("red, tulip", choices, field).complaint, /does not contain 'tulip'/);
  assert.ok(shown("red, tulip").includes("red = ✗ tulip"));
});
