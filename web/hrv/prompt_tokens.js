// The tokens of the prompt that a node encodes.

import { loaderBehind } from "./loaders.js";
import { lastOutput, lastText } from "./page.js";
import { textOf } from "./prompts.js";
import { known } from "./server.js";
import { say } from "./texts.js";

/** @import { Place } from "./graph.js" */
/** @import { Tokens } from "./words.js" */

/** @typedef {{ tokens: Tokens } | { tokens: null, why?: string }} Told */

/**
 * The tokens of an encoder's prompt, or why they are not known, if it is more than that the server is being asked: those
 * that its last run found in this prompt, where its text encoder is not CLIP, and those of the text encoder that the graph
 * has for it otherwise. Where the graph doesn't tell which that is, its last run may have told that it is CLIP.
 * @param {Place} encoder
 * @returns {Told}
 */
export function tokensAt(encoder) {
  const text = textOf(encoder, lastText);
  if (text === undefined) return afterRun();
  const output = lastOutput(encoder);
  /** @type {Tokens | undefined} */
  const found = output?.hrv_tokens?.[0];
  if (found && lastText(encoder) === text) return { tokens: found };
  const loader = loaderBehind(encoder);
  const told = loader && asked({ text, loader });
  if (told) return told;
  return (output?.hrv_encoder?.[0] === "clip" && asked({ text })) || afterRun();
}

/**
 * What the server tells; null if it does not know the tokens of the loader's text encoder.
 * @param {object} request
 * @returns {Told | null}
 */
function asked(request) {
  const { answer, error } = known("/hrv/tokens", request);
  if (answer) return answer.words && { tokens: /** @type {Tokens} */ (answer) };
  return { tokens: null, ...(error ? { why: error } : {}) };
}

/** @returns {Told} */
function afterRun() {
  return { tokens: null, why: say("The words of this prompt are known after a run.") };
}
