import assert from "node:assert/strict";
import { test } from "node:test";

import { encodersBehind, textOf } from "../../../web/hrv/prompts.js";
import {
  chunksOf,
  describe,
  gonePhrases,
  hasPhrase,
  isSubject,
  namesIn,
  namesWord,
  offeredWords,
  toggledSubject,
  toggledWord,
  wordComplaint,
} from "../../../web/hrv/words.js";
import { graphOf, nodeOf } from "./graphs.js";

const VASE = ["a", "rose", "-", "colored", "vase", ",", "Straße", "blue", "bird"];

test("phrases are found as the controls find them", () => {
  for (const phrase of ["rose-colored", "Rose - COLORED", "vase", "STRASSE", "blue bird", "bluebird", "colored vase"]) {
    assert.ok(hasPhrase(VASE, phrase), phrase);
  }
  for (const phrase of ["rose colored", "ros", "ose", "", " ", "vase strasse", "bird a"]) {
    assert.ok(!hasPhrase(VASE, phrase), phrase);
  }
});

test("a click adds a word and takes it away again", () => {
  assert.equal(toggledWord("", "red"), "red");
  assert.equal(toggledWord("red", "car"), "red, car");
  assert.equal(toggledWord("RED, car", "red"), "car");
  assert.equal(toggledWord("*", "red"), "red");
  assert.ok(namesWord("*", "red") && namesWord("car, Red", "red") && !namesWord("red car", "red") && !namesWord("", "red"));
});

test("a click adds a subject and takes it away again with its concept", () => {
  assert.equal(toggledSubject("cat: Animals, frog: Animals", "bird"), "cat: Animals, frog: Animals, bird");
  assert.equal(toggledSubject("cat: Animals\nFrog : Animals", "frog"), "cat: Animals");
  assert.equal(toggledSubject("", "frog"), "frog");
  assert.ok(isSubject("cat: Animals\nfrog", "Frog") && isSubject("cat: Animals", "cat") && !isSubject("cat: Animals", "Animals"));
});

test("words are offered once and without punctuation", () => {
  assert.deepEqual(offeredWords([["a", "Cat", ",", "a", "cat"], ["3", "dogs"]]), ["a", "Cat", "3", "dogs"]);
});

test("phrases that are gone are named with the words there are", () => {
  assert.deepEqual(gonePhrases(["vase", "*", "tulip"], [["a"], VASE]), ["tulip"]);
  assert.equal(wordComplaint(["a", "*"], [["a"]]), null);
  assert.equal(wordComplaint(["tulip"], [["a", "vase"]]), "The prompt does not contain 'tulip'. Its words are: a, vase.");
  assert.equal(wordComplaint(["tulip"], [[]]), "The prompt does not contain 'tulip'. Its words are: none.");
  assert.equal(wordComplaint([], [["a"]]), null);
});

const encoder = (id, text, type = "HRV_TextEncode") =>
  nodeOf(id, type, ["clip:CLIP", "text:STRING"], ["CONDITIONING:CONDITIONING"], { values: { text } });
const control = (id, inputs = ["conditioning:CONDITIONING"]) =>
  nodeOf(id, "HRV_ConceptStrengthen", ["model:MODEL", ...inputs], ["MODEL:MODEL", "CONDITIONING:CONDITIONING"]);

/** The texts of the encoders behind a node, given what a run told last. */
const textsBehind = (node, last) => encodersBehind({ path: [], node }, "conditioning")?.map((encoder) => textOf(encoder, () => last)) ?? null;

test("prompts are found behind controls, combinations and nodes of others", () => {
  const combine = nodeOf(5, "ConditioningCombine", ["a:CONDITIONING", "b:CONDITIONING"], ["c:CONDITIONING"]);
  const last = control(6);
  const graph = graphOf([encoder(1, "a cat"), encoder(2, "a dog", "HRV_TagConditioning"), control(3), combine, last]);
  graph.wire(1, 0, 3, "conditioning").wire(3, 1, 5, "a").wire(2, 0, 5, "b").wire(5, 0, 6, "conditioning");
  assert.deepEqual(textsBehind(last), ["a cat", "a dog"]);
});

test("a prompt that comes by many ways is one, and a way back to itself ends nowhere", () => {
  const both = (id) => nodeOf(id, "ConditioningCombine", ["a:CONDITIONING", "b:CONDITIONING"], ["c:CONDITIONING"]);
  const [combines, last] = [Array.from({ length: 40 }, (_, number) => both(number + 2)), control(99)];
  const graph = graphOf([encoder(1, "a cat"), ...combines, last]);
  for (const { id } of combines) graph.wire(id - 1, 0, id, "a").wire(id - 1, 0, id, "b");
  graph.wire(41, 0, 99, "conditioning");
  assert.deepEqual(textsBehind(last), ["a cat"]);
  graph.wire(41, 0, 2, "b");
  assert.equal(textsBehind(last), null);
});

test("what is decided by a run is known from the last one, or not at all", () => {
  const [dynamic, foreign, last] = [encoder(1, "a {red|blue} cat"), nodeOf(2, "Other", [], ["c:CONDITIONING"]), control(3)];
  const graph = graphOf([dynamic, foreign, last]).wire(1, 0, 3, "conditioning");
  assert.deepEqual(textsBehind(last), [undefined]);
  assert.deepEqual(textsBehind(last, "a red cat"), ["a red cat"]);
  graph.wire(2, 0, 3, "conditioning");
  assert.equal(textsBehind(last, "a red cat"), null);
  assert.equal(textOf({ path: [], node: encoder(9, "a \\{cat") }, () => "no"), "a \\{cat");
});

test("chunks hold their words, and say how full they are", () => {
  const word = (text, ...positions) => ({ text, pieces: [], positions, weight: 1 });
  const short = { words: [word("red", 1), word("skyscraper", 2, 3)], length: 77, chunk: 77 };
  assert.deepEqual(chunksOf(short).map((words) => words.map(({ text }) => text)), [["red", "skyscraper"]]);
  assert.equal(describe(short), "3 of 75 tokens");
  const long = { words: [word("a", 75), word("both", 76, 78), word("b", 79)], length: 154, chunk: 77 };
  assert.deepEqual(chunksOf(long).map((words) => words.map(({ text }) => text)), [["a", "both"], ["both", "b"]]);
  assert.equal(describe(long), "4 of 150 tokens in 2 chunks");
  assert.deepEqual(chunksOf({ words: [], length: 77, chunk: 77 }), [[]]);
});

test("encoders that are not CLIP have groups beside the words, which can be named", () => {
  const word = (text, ...positions) => ({ text, pieces: [], positions, weight: 1 });
  const tokens = { words: [word("red", 4), word("skyscraper", 5, 6)], length: 12, chunk: 12, groups: { template: 9 } };
  assert.equal(describe(tokens), "3 of 12 tokens are words");
  assert.deepEqual(namesIn(tokens), ["red", "skyscraper", "template"]);
  assert.deepEqual(namesIn({ words: [word("red", 1)], length: 77, chunk: 77 }), ["red"]);
  assert.deepEqual(chunksOf(tokens).length, 1);
});
