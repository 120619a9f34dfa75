// Color scales for relevances of heads.

import { ranks } from "./heads.js";
import { say } from "./texts.js";

// The ramp of the pack's pictures (hrv/drawing/paper.py): blue, neutral, orange, dark red, with even lightness on both
// sides of the middle. Nearly all color-blind eyes tell blue from orange.
const RAMP = [
  [50, 98, 169], [69, 124, 193], [95, 150, 210], [124, 174, 222], [159, 198, 231], [198, 221, 238],
  [241, 240, 236],
  [237, 205, 166], [233, 165, 104], [220, 121, 51], [191, 78, 24], [150, 45, 18], [104, 24, 15],
]; // prettier-ignore

const SHADES = 512;
/** @type {string[]} */
const shades = Array.from({ length: SHADES + 1 }, (_, shade) => {
  const at = (shade / SHADES) * (RAMP.length - 1);
  const below = Math.min(Math.floor(at), RAMP.length - 2);
  const channels = [0, 1, 2].map((channel) => {
    const [low = 0, high = 0] = [RAMP[below]?.[channel], RAMP[below + 1]?.[channel]];
    return Math.round(low + (high - low) * (at - below));
  });
  return `rgb(${channels.join(", ")})`;
});

/**
 * The color of a place on the ramp: -1 is its lower end, 0 the neutral middle, 1 its upper end.
 * @param {number} place
 */
export function rampColor(place) {
  return shades[Math.round(((Math.min(1, Math.max(-1, place)) + 1) / 2) * SHADES)] ?? "";
}

/**
 * @typedef {object} Scale
 * @property {(row: ArrayLike<number>) => ArrayLike<number>} places of the values of a row on the ramp, from -1 to 1
 * @property {{ place: number, text: string }[]} ticks
 */

export const SCALES = ["relevance", "linear", "rank"];

/**
 * A scale that all rows share.
 *
 * "relevance" is that of the pack's pictures (hrv/relevance/heat_map.py): even from 0 to 1, the average head, then a step
 * for every doubling, enough for 99 of 100 heads and at most 6, so that a few heads of 20 or 30 leave small ones legible.
 * "linear": even from 0 to the highest. "rank": by order alone.
 * @param {string} name one of SCALES
 * @param {readonly ArrayLike<number>[]} rows
 * @returns {Scale}
 */
export function scaleOf(name, rows) {
  if (name === "rank") {
    const last = Math.max(1, (rows[0]?.length ?? 0) - 1);
    return {
      places: (row) => Array.from(ranks(row), (rank) => 1 - (2 * (rank - 1)) / last),
      ticks: [
        { place: -1, text: say("last") },
        { place: 1, text: say("first") },
      ],
    };
  }
  const highest = highestOf(rows, (value) => value);
  if (name === "linear") {
    return {
      places: (row) => Array.from(row, (value) => (2 * value) / highest - 1),
      ticks: [0, 0.5, 1].map((part) => ({ place: 2 * part - 1, text: short(part * highest) })),
    };
  }
  const octaves = Math.min(6, Math.max(1, Math.ceil(Math.log2(Math.max(1, percentile99(rows))))));
  const place = (/** @type {number} */ value) => (value < 1 ? value - 1 : Math.min(1, Math.log2(value) / octaves));
  const doublings = Array.from({ length: octaves + 1 }, (_, octave) => 2 ** octave);
  return {
    places: (row) => Array.from(row, place),
    ticks: [0, 0.5, ...doublings].map((value) => ({
      place: place(value),
      text: value === 2 ** octaves && value < highest ? `${value}+` : short(value),
    })),
  };
}

/**
 * A scale for differences: neutral at 0, and finer for small ones, as they are most.
 * @param {readonly ArrayLike<number>[]} rows
 * @returns {Scale}
 */
export function differenceScale(rows) {
  const highest = highestOf(rows, Math.abs);
  const place = (/** @type {number} */ value) => (Math.sign(value) * Math.log1p(Math.abs(value))) / Math.log1p(highest);
  const half = Math.expm1(Math.log1p(highest) / 2);
  return {
    places: (row) => Array.from(row, place),
    ticks: [-highest, -half, 0, half, highest].map((value) => ({
      place: place(value),
      text: `${value > 0 ? "+" : ""}${short(value)}`,
    })),
  };
}

/**
 * The highest of all values, or 1 if none is above 0.
 * @param {readonly ArrayLike<number>[]} rows
 * @param {(value: number) => number} of
 */
function highestOf(rows, of) {
  let highest = 0;
  for (const row of rows) for (const value of Array.from(row)) highest = Math.max(highest, of(value));
  return highest || 1;
}

/**
 * The value below which 99 of 100 lie, between two values in proportion, as numpy has it.
 * @param {readonly ArrayLike<number>[]} rows
 */
function percentile99(rows) {
  const values = Float64Array.from(rows.flatMap((row) => Array.from(row))).sort();
  const at = 0.99 * (values.length - 1);
  const low = values[Math.floor(at)] ?? 1;
  return low + (at - Math.floor(at)) * ((values[Math.ceil(at)] ?? low) - low);
}

/** @param {number} value */
export function short(value) {
  return String(Number(value.toPrecision(3)));
}
