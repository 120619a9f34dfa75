// The words of a prompt under the node that encodes it, as the model's tokenizer splits them.

import { asGraphNode, isOurs, rootGraph } from "./page.js";
import { tokensAt } from "./prompt_tokens.js";
import { encodersBehind } from "./prompts.js";
import { holderOf, nodesWithin, placesOf } from "./sources.js";
import { addStyle } from "./styles.js";
import { say } from "./texts.js";
import { WORD_FIELDS } from "./word_fields.js";
import { chunksOf, describe } from "./words.js";

/** @import { LGraphNode, PageNode, PageWidget } from "./page.js" */
/** @import { Panel } from "./panels.js" */
/** @import { Clicks } from "./word_fields.js" */
/** @import { Tokens } from "./words.js" */

const STYLE = `
.hrv-words { width: 100%; height: 100%; box-sizing: border-box; overflow-y: auto; font: 12px sans-serif; line-height: 20px;
  color: var(--input-text, #ddd); }
.hrv-words-chip { display: inline-block; margin: 1px 2px; padding: 0 6px; border-radius: 9px; background: var(--comfy-input-bg, #222);
  border: 1px solid var(--border-color, #4e4e4e); font: inherit; line-height: 18px; color: inherit; cursor: pointer; }
.hrv-words-chip[aria-pressed=true] { border-color: var(--p-primary-color, #4a9eff); box-shadow: inset 0 0 0 1px var(--p-primary-color, #4a9eff); }
.hrv-words-chip:focus-visible { outline: 2px solid var(--p-primary-color, #4af); }
.hrv-words-chip .piece + .piece { border-left: 1px dotted currentColor; margin-left: 3px; padding-left: 3px; }
.hrv-words-chip sup { font-size: 9px; margin-left: 3px; opacity: 0.8; }
.hrv-words-chunk { border-top: 1px dashed var(--border-color, #4e4e4e); }
.hrv-words-says { opacity: 0.8; font-size: 11px; }
`;

/** @type {Panel} */
export const WORDS = {
  name: "hrv.words",
  title: "words",
  width: 0,
  height: 80,
  minHeight: 60,
  openWhenNew: new Set(["HRV_TextEncode"]),
  isFor: (node) => isOurs(node) && ["HRV_TextEncode", "HRV_TagConditioning"].includes(String(node.comfyClass)),
  make: (node) => {
    addStyle("hrv-words-style", STYLE);
    const element = document.createElement("div");
    element.className = "hrv-words";
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", say("Words of the prompt"));
    /** @type {unknown} */
    let shown;
    const update = () => {
      const seen = wordsAt(node);
      if (seen !== shown) element.replaceChildren(...(typeof seen === "string" ? [said(seen)] : chips(seen)));
      shown = seen;
      mark(element, node);
    };
    element.addEventListener("click", ({ target }) => {
      const word = target instanceof Element && /** @type {HTMLElement | null} */ (target.closest("[data-word]"))?.dataset.word;
      if (word) takeWord(node, word);
      update();
    });
    // A press here is no drag of the node.
    for (const kind of ["pointerdown", "mousedown"]) element.addEventListener(kind, (event) => event.stopPropagation());
    return { element, update, remove: () => element.remove() };
  },
};

/**
 * The field that clicks on a prompt's words change: that of the node that is selected, or of the first that reads it,
 * those beside it before those in other graphs of the workflow.
 * @param {PageNode} node
 * @returns {{ target: LGraphNode, widget: PageWidget, clicks: Clicks } | null}
 */
function fieldFor(node) {
  const encoder = asGraphNode(node);
  const reading = nodesWithin(rootGraph()).flatMap((other) => {
    const field = WORD_FIELDS[String(other.type)];
    const place = field?.clicks && placesOf(rootGraph(), other)[0];
    const isReader = place && encodersBehind(place, "conditioning")?.some(({ node: behind }) => behind === encoder);
    return isReader ? [{ place, field, target: /** @type {LGraphNode} */ (/** @type {unknown} */ (other)) }] : [];
  });
  const found =
    reading.find(({ target }) => target.selected) ?? reading.find(({ target }) => target.graph === node.graph) ?? reading[0];
  const holder = found && holderOf(found.place, found.field.name);
  const widget = holder?.node.widgets?.find(({ name }) => name === holder.name);
  return found?.field.clicks && widget ? { target: found.target, widget: /** @type {any} */ (widget), clicks: found.field.clicks } : null;
}

/**
 * Add a word to the field of the control that reads the prompt, or take it away again.
 * @param {PageNode} node
 * @param {string} word
 */
function takeWord(node, word) {
  const found = fieldFor(node);
  if (!found) return;
  const text = found.clicks.toggled(String(found.widget.value ?? ""), word);
  found.widget.value = text;
  found.widget.callback?.(text);
  found.target.setDirtyCanvas(true);
}

/**
 * Let each chip say whether the control acts on its word, and what a click does.
 * @param {HTMLElement} element
 * @param {PageNode} node
 */
function mark(element, node) {
  const found = fieldFor(node);
  for (const chip of /** @type {NodeListOf<HTMLElement>} */ (element.querySelectorAll("[data-word]"))) {
    const { word = "", tokens = "" } = chip.dataset;
    const isActedOn = found !== null && found.clicks.has(String(found.widget.value ?? ""), word);
    const values = { node: found?.target.title ?? "" };
    const does = isActedOn ? say("Click to take it from {node}.", values) : say("Click to add it to {node}.", values);
    const click = found ? does : "";
    chip.setAttribute("aria-pressed", String(isActedOn));
    if (chip.title !== `${tokens} ${click}`.trim()) chip.title = `${tokens} ${click}`.trim();
  }
}

/**
 * The tokens of a node's prompt, or what is to be said instead.
 * @param {PageNode} node
 * @returns {Tokens | string}
 */
function wordsAt(node) {
  const place = placesOf(rootGraph(), asGraphNode(node))[0];
  if (!place) return say("The words of this prompt are known after a run.");
  const found = tokensAt(place);
  return found.tokens ?? found.why ?? "…";
}

/** @param {Tokens} tokens */
function chips(tokens) {
  const lines = chunksOf(tokens).map((words, number) => lineOf(words.map(chip), number > 0));
  const groups = Object.entries(tokens.groups ?? {}).map(([name, count]) => groupChip(name, count));
  return [said(describe(tokens)), ...lines, ...(groups.length > 0 ? [lineOf(groups, true)] : [])];
}

/**
 * @param {HTMLElement[]} parts
 * @param {boolean} isApart
 */
function lineOf(parts, isApart) {
  const line = document.createElement("div");
  line.className = isApart ? "hrv-words-chunk" : "";
  line.append(...parts);
  return line;
}

/**
 * @param {string} name
 * @param {number} count
 */
function groupChip(name, count) {
  const element = chip({ text: name, pieces: [], positions: [], weight: 1 });
  element.dataset.tokens = say("{count} tokens beside the words.", { count });
  return element;
}

/** @param {import("./words.js").Word} word */
function chip({ text, pieces, positions, weight }) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "hrv-words-chip";
  element.dataset.word = text;
  for (const piece of pieces.length > 1 ? pieces : [text]) {
    const part = document.createElement("span");
    part.className = "piece";
    part.textContent = piece;
    element.append(part);
  }
  if (weight !== 1) {
    const mark = document.createElement("sup");
    mark.textContent = `×${Number(weight.toPrecision(3))}`;
    element.append(mark);
  }
  const places = { positions: positions.join(", ") };
  element.dataset.tokens = positions.length === 1 ? say("Token {positions}.", places) : say("Tokens {positions}.", places);
  return element;
}

/** @param {string} text */
function said(text) {
  const element = document.createElement("div");
  element.className = "hrv-words-says";
  element.textContent = text;
  return element;
}
