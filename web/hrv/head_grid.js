// Where the heads of a heat map lie: layers down, heads across, blocks and sections set apart.

/** @import { Layer } from "./heads.js" */

const SECTION_GAP = 0.8; // of a cell's height
const BLOCK_GAP = 0.3;
const NAME_HEIGHT = 15; // pixels above each panel
export const PANEL_GAP = 10;
const LONGEST_CELL = 3; // how much longer than wide a cell may be, or the other way round
const LARGEST_CELL = 26;

/**
 * @typedef {object} Row
 * @property {Layer} layer
 * @property {number} y in heights of a cell
 */

/**
 * @typedef {object} Grid
 * @property {Row[]} rows
 * @property {{ name: string, y: number, height: number }[]} blocks
 * @property {number} width in cells
 * @property {number} height in heights of a cell
 */

/**
 * @typedef {object} Arrangement
 * @property {Grid} grid
 * @property {number} cellWidth in pixels
 * @property {number} cellHeight
 * @property {{ x: number, y: number }[]} panels the upper left corner of each panel's cells
 * @property {number} left pixels for the names of blocks
 */

/**
 * @param {readonly Layer[]} layers
 * @returns {Grid}
 */
export function gridOf(layers) {
  /** @type {Row[]} */
  const rows = [];
  /** @type {Grid["blocks"]} */
  const blocks = [];
  const deep = layers.some((layer, number) => number > 0 && blockOf(layer) === blockOf(layers[number - 1]));
  let y = 0;
  for (const layer of layers) {
    const block = blocks.at(-1);
    if (block && block.name === blockOf(layer)) {
      block.height += 1;
    } else {
      if (block) y += sectionOf(block.name) === sectionOf(blockOf(layer)) ? (deep ? BLOCK_GAP : 0) : SECTION_GAP;
      blocks.push({ name: blockOf(layer), y, height: 1 });
    }
    rows.push({ layer, y });
    y += 1;
  }
  return { rows, blocks, width: Math.max(...layers.map(({ heads }) => heads)), height: y };
}

/**
 * So many panels side by side and below each other in a rectangle, their cells as large as possible.
 * @param {Grid} grid
 * @param {number} count
 * @param {number} width pixels
 * @param {number} height pixels
 * @returns {Arrangement}
 */
export function arrange(grid, count, width, height) {
  const left = 40;
  let best = { size: 0, columns: 1, cellWidth: 1, cellHeight: 1 };
  for (let columns = 1; columns <= count; columns++) {
    const lines = Math.ceil(count / columns);
    let cellWidth = ((width - left) / columns - PANEL_GAP) / grid.width;
    let cellHeight = (height / lines - NAME_HEIGHT - PANEL_GAP / 2) / grid.height;
    cellWidth = Math.min(cellWidth, LONGEST_CELL * cellHeight, LARGEST_CELL);
    cellHeight = Math.min(cellHeight, LONGEST_CELL * cellWidth, LARGEST_CELL);
    const size = cellWidth * cellHeight;
    if (Math.min(cellWidth, cellHeight) > 0 && size > best.size) best = { size, columns, cellWidth, cellHeight };
  }
  const { columns, cellWidth, cellHeight } = best;
  const panels = Array.from({ length: count }, (_, number) => ({
    x: left + (number % columns) * (cellWidth * grid.width + PANEL_GAP),
    y: NAME_HEIGHT + Math.floor(number / columns) * (cellHeight * grid.height + NAME_HEIGHT + PANEL_GAP / 2),
  }));
  return { grid, cellWidth, cellHeight, panels, left };
}

/**
 * The rectangle of a head in a panel, in pixels.
 * @param {Arrangement} arrangement
 * @param {number} panel
 * @param {number} position
 */
export function cellOf({ grid, cellWidth, cellHeight, panels }, panel, position) {
  const row = grid.rows.findLast(({ layer }) => layer.first <= position);
  const { x = 0, y = 0 } = panels[panel] ?? {};
  const head = position - (row?.layer.first ?? 0);
  return { x: x + head * cellWidth, y: y + (row?.y ?? 0) * cellHeight, width: cellWidth, height: cellHeight };
}

/**
 * The head under a point, and in which panel, or null.
 * @param {Arrangement} arrangement
 * @param {number} x
 * @param {number} y
 */
export function headAt({ grid, cellWidth, cellHeight, panels }, x, y) {
  for (const [panel, corner] of panels.entries()) {
    const column = Math.floor((x - corner.x) / cellWidth);
    const line = (y - corner.y) / cellHeight;
    const row = grid.rows.find((candidate) => candidate.y <= line && line < candidate.y + 1);
    if (row && column >= 0 && column < row.layer.heads) return { panel, position: row.layer.first + column };
  }
  return null;
}

/**
 * The head next to another: by columns and by layers, as far as there are any.
 * @param {Grid} grid
 * @param {number} position
 * @param {number} columns
 * @param {number} lines
 */
export function neighbour({ rows }, position, columns, lines) {
  const line = rows.findLastIndex(({ layer }) => layer.first <= position);
  const head = position - (rows[line]?.layer.first ?? 0) + columns;
  const { layer } = rows[Math.min(rows.length - 1, Math.max(0, line + lines))] ?? {};
  return layer ? layer.first + Math.min(layer.heads - 1, Math.max(0, head)) : position;
}

/** @param {Layer | undefined} layer "down4" of "down4.1" */
function blockOf(layer) {
  return layer?.name.split(".")[0] ?? "";
}

/** @param {string} block "down" of "down4" */
function sectionOf(block) {
  return block.replace(/\d+$/, "");
}
