// Which loader gives a prompt its text encoder, as a question to the server (host/routes/loaders.py).

import { executionId } from "./executed.js";
import { sourceOf, widgetValue } from "./sources.js";

/** @import { Place } from "./graph.js" */

/** @typedef {{ node: string, widgets: Record<string, string> }} Loader */

// The host's nodes that merge two text encoders keep the tokens of the first.
const MERGES = new Set(["CLIPMergeSimple", "CLIPMergeAdd", "CLIPMergeSubtract"]);
// What fills a prompt up is another thing behind these.
const CHANGES_TOKENS = new Set(["T5TokenizerOptions"]);

/**
 * The loader behind the text encoder of a node that encodes a prompt, whatever LoRAs and the like are between them; null
 * if it is not known before a run.
 * @param {Place} encoder
 * @returns {Loader | null}
 */
export function loaderBehind(encoder) {
  return loaderOf(sourceOf(encoder, "clip"), new Set());
}

/**
 * @param {Place | null} place
 * @param {Set<string>} seen nodes on the way, so that a ring ends
 * @returns {Loader | null}
 */
function loaderOf(place, seen) {
  const type = String(place?.node.type);
  if (!place || CHANGES_TOKENS.has(type) || seen.has(executionId(place))) return null;
  seen.add(executionId(place));
  const taken = place.node.inputs.filter(({ type, link }) => type === "CLIP" && link !== null && link !== undefined);
  const [first, ...others] = MERGES.has(type) ? taken.filter(({ name }) => name === "clip1") : taken;
  if (!first) return taken.length > 0 ? null : described(place);
  return others.length > 0 ? null : loaderOf(sourceOf(place, first.name), seen);
}

/**
 * A loader with the texts of its widgets; null if one is only known in a run.
 * @param {Place} place
 * @returns {Loader | null}
 */
function described(place) {
  /** @type {Record<string, string>} */
  const widgets = {};
  for (const { name } of place.node.widgets ?? []) {
    const value = widgetValue(place, name);
    if (value === undefined) return null;
    if (typeof value === "string") widgets[name] = value;
  }
  return { node: String(place.node.type), widgets };
}
