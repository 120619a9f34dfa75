// How far long work on a node is, as the server tells it (host/work/status.py), in words.

import { say, told } from "./texts.js";

/** @typedef {{ name: string, across: number[], up: (number | null)[] }} Curve */

/** @typedef {{ across: string, up: string, curves: Curve[] }} Curves with the names of the axes */

/**
 * @typedef {object} Status
 * @property {string} workflow
 * @property {string} node what a run calls it
 * @property {string} kind
 * @property {string} unit what is counted
 * @property {number} done
 * @property {number} total
 * @property {"running" | "cancelled" | "failed" | "interrupted" | "done"} state
 * @property {boolean} kept whether the same work resumes from what is done
 * @property {number | null} seconds left
 * @property {string} detail
 * @property {Curves | null} curves
 * @property {string | null} hrv the digest of the HRV so far
 * @property {number} at when it was so
 */

const STOPPED = {
  cancelled: () => say("Cancelled"),
  failed: () => say("Stopped by an error"),
  interrupted: () => say("Interrupted as ComfyUI stopped"),
};

/**
 * A status in a sentence.
 * @param {Status} status
 */
export function describeStatus({ state, done, total, unit, detail, seconds, kept }) {
  const count = { done, total, unit: told(unit) };
  if (state === "running") {
    const left = seconds === null ? "" : say("{time} left", { time: clock(seconds) });
    return [say("{done} of {total} {unit}", count), told(detail), left].filter(Boolean).join(say(", "));
  }
  if (state === "done") return done < total ? say("Done after {done} of {total} {unit}.", count) : say("Done: {total} {unit}.", count);
  const values = { ...count, stopped: STOPPED[state]() };
  if (kept && done > 0) return say("{stopped}: {done} of {total} {unit} kept. The same settings resume from there.", values);
  return say("{stopped} after {done} of {total} {unit}.", values);
}

/**
 * The later of two statuses.
 * @param {Status | undefined} one
 * @param {Status | undefined} other
 */
export function later(one, other) {
  return one && other ? (one.at >= other.at ? one : other) : (one ?? other);
}

/**
 * Hours, minutes and seconds, such as "1:02:03".
 * @param {number} seconds
 */
function clock(seconds) {
  const whole = Math.round(seconds);
  const [minutes, rest] = [Math.floor(whole / 60) % 60, whole % 60];
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  return whole < 3600 ? `${minutes}:${two(rest)}` : `${Math.floor(whole / 3600)}:${two(minutes)}:${two(rest)}`;
}

/**
 * Curves over one axis as uPlot takes them: the places from left to right, then each curve's values at all of them.
 * @param {Curves} curves
 * @returns {[number[], ...(number | null)[][]]}
 */
export function aligned({ curves }) {
  const places = [...new Set(curves.flatMap(({ across }) => across))].sort((one, other) => one - other);
  const rows = curves.map(({ across, up }) => {
    const known = new Map(across.map((place, number) => [place, up[number] ?? null]));
    return places.map((place) => known.get(place) ?? null);
  });
  return [places, ...rows];
}
