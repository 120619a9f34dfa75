// The words of a prompt under the node that encodes it, as the model's tokenizer splits them.

import { asGraphNode, isOurs, lastText, rootGraph } from "./page.js";
import { textOf } from "./prompts.js";
import { known } from "./server.js";
import { placesOf } from "./sources.js";
import { addStyle } from "./styles.js";
import { chunksOf, describe } from "./words.js";

/** @import { PageNode } from "./page.js" */
/** @import { Panel } from "./panels.js" */
/** @import { Tokens } from "./words.js" */

const STYLE = `
.hrv-words { width: 100%; height: 100%; box-sizing: border-box; overflow-y: auto; font: 12px sans-serif; line-height: 20px;
  color: var(--input-text, #ddd); }
.hrv-words-chip { display: inline-block; margin: 1px 2px; padding: 0 6px; border-radius: 9px; background: var(--comfy-input-bg, #222);
  border: 1px solid var(--border-color, #4e4e4e); }
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
    element.tabIndex = 0;
    element.setAttribute("aria-label", "Words of the prompt");
    /** @type {unknown} */
    let shown;
    return {
      element,
      update: () => {
        const seen = wordsAt(node);
        if (seen === shown) return;
        shown = seen;
        element.replaceChildren(...(typeof seen === "string" ? [said(seen)] : chips(seen)));
      },
      remove: () => element.remove(),
    };
  },
};

/**
 * The tokens of a node's prompt, or what is to be said instead.
 * @param {PageNode} node
 * @returns {Tokens | string}
 */
function wordsAt(node) {
  const place = placesOf(rootGraph(), asGraphNode(node))[0];
  const text = place && textOf(place, lastText);
  if (text === undefined) return "The words of this prompt are known after a run.";
  const { answer, error } = known("/hrv/tokens", { text });
  return answer ?? error ?? "…";
}

/** @param {Tokens} tokens */
function chips(tokens) {
  return chunksOf(tokens).flatMap((words, number) => {
    const line = document.createElement("div");
    line.className = number > 0 ? "hrv-words-chunk" : "";
    line.append(...words.map(chip));
    return number === 0 ? [said(describe(tokens)), line] : [line];
  });
}

/** @param {import("./words.js").Word} word */
function chip({ text, pieces, positions, weight }) {
  const element = document.createElement("span");
  element.className = "hrv-words-chip";
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
  element.title = `${positions.length === 1 ? "token" : "tokens"} ${positions.join(", ")}`;
  return element;
}

/** @param {string} text */
function said(text) {
  const element = document.createElement("div");
  element.className = "hrv-words-says";
  element.textContent = text;
  return element;
}
