// An HRV as the server gives it (host/routes/server.py), and what is read off it.

import { fold } from "./names.js";

/**
 * @typedef {object} HRV
 * @property {string[]} concepts
 * @property {unknown} layout rows of block, id, transformer index and heads; with a family beside them if it is no UNet's
 * @property {Layer[]} layers
 * @property {number} headCount
 * @property {Float32Array[]} rows one for each concept, a value for each head position; 1 is an average head
 */

/**
 * @typedef {object} Layer
 * @property {string} name such as "down4.0"
 * @property {number} heads
 * @property {number} first the position of its first head
 */

/**
 * @param {{ concepts: string[], layout: any, names: string[], values: string }} answer
 * @returns {HRV}
 */
export function readHRV({ concepts, layout, names, values }) {
  const bytes = Uint8Array.from(atob(values), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const written = Array.isArray(layout) ? layout : layout.layers;
  let headCount = 0;
  const layers = names.map((name, number) => {
    const layer = { name, heads: written[number][3], first: headCount };
    headCount += layer.heads;
    return layer;
  });
  const rows = concepts.map((_, row) =>
    Float32Array.from({ length: headCount }, (_, head) => view.getFloat32(4 * (row * headCount + head), true)),
  );
  return { concepts, layout, layers, headCount, rows };
}

/**
 * The layer of a head position and the head's number in it.
 * @param {HRV} hrv
 * @param {number} position
 */
export function headName({ layers }, position) {
  const layer = layers.findLast(({ first }) => first <= position);
  return { layer: layer?.name ?? "", head: position - (layer?.first ?? 0) };
}

/**
 * For each head position its place in the order of a row, from 1 for the highest; equals keep their order.
 * @param {ArrayLike<number>} row
 */
export function ranks(row) {
  const order = Array.from(row, (_, position) => position).sort((one, other) => (row[other] ?? 0) - (row[one] ?? 0));
  const found = new Uint32Array(order.length);
  order.forEach((position, place) => (found[position] = place + 1));
  return found;
}

/**
 * The concepts that a head position matters most for, the highest value first.
 * @param {HRV} hrv
 * @param {number} position
 * @param {number} count
 */
export function topConcepts({ concepts, rows }, position, count) {
  return concepts
    .map((concept, row) => ({ concept, value: rows[row]?.[position] ?? 0 }))
    .sort((one, other) => other.value - one.value)
    .slice(0, count);
}

/**
 * What one HRV has more than another, for the concepts of both; null if there is none, or their heads differ.
 * @param {HRV} one
 * @param {HRV} other
 * @returns {HRV | null}
 */
export function difference(one, other) {
  if (JSON.stringify(one.layout) !== JSON.stringify(other.layout)) return null;
  const others = new Map(other.concepts.map((concept, row) => [fold(concept), other.rows[row]]));
  const concepts = one.concepts.filter((concept) => others.has(fold(concept)));
  const rows = concepts.map((concept) => {
    const minus = others.get(fold(concept));
    return /** @type {Float32Array} */ (one.rows[one.concepts.indexOf(concept)]).map(
      (value, head) => value - (minus?.[head] ?? 0),
    );
  });
  return concepts.length ? { ...one, concepts, rows } : null;
}

/**
 * A table of some concepts: a line for each head.
 * @param {HRV} hrv
 * @param {number[]} chosen numbers of the concepts
 */
export function toCSV(hrv, chosen) {
  const lines = ["concept,layer,head,position,value,rank"];
  for (const row of chosen) {
    const name = `"${hrv.concepts[row]?.replaceAll('"', '""')}"`;
    const values = hrv.rows[row] ?? new Float32Array();
    const places = ranks(values);
    values.forEach((value, position) => {
      const { layer, head } = headName(hrv, position);
      // Nine digits tell any two float32 apart.
      lines.push([name, layer, head, position, Number(value.toPrecision(9)), places[position]].join(","));
    });
  }
  return `${lines.join("\r\n")}\r\n`;
}
