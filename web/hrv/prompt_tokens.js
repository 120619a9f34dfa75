// The tokens of the prompt that a node encodes.

import { lastOutput, lastText } from "./page.js";
import { textOf } from "./prompts.js";
import { known } from "./server.js";
import { say } from "./texts.js";

/** @import { Place } from "./graph.js" */
/** @import { Tokens } from "./words.js" */

/**
 * The tokens of an encoder's prompt, or why they are not known, if it is more than that the server is being asked: those that its last run found in
 * this prompt, where its text encoder is not CLIP, and those that CLIP makes of it otherwise.
 * @param {Place} encoder
 * @returns {{ tokens: Tokens } | { tokens: null, why?: string }}
 */
export function tokensAt(encoder) {
  const text = textOf(encoder, lastText);
  if (text === undefined) return { tokens: null, why: say("The words of this prompt are known after a run.") };
  /** @type {Tokens | undefined} */
  const found = lastOutput(encoder)?.hrv_tokens?.[0];
  if (found && lastText(encoder) === text) return { tokens: found };
  const { answer, error } = known("/hrv/tokens", { text });
  return answer ? { tokens: /** @type {Tokens} */ (answer) } : { tokens: null, ...(error ? { why: error } : {}) };
}
