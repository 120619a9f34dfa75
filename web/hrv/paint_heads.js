// Draws a heat map on a canvas.

import { PANEL_GAP, arrange, cellOf, gridOf } from "./head_grid.js";
import { differenceScale, rampColor, scaleOf } from "./scales.js";

/** @import { Arrangement } from "./head_grid.js" */
/** @import { HRV } from "./heads.js" */

const LEGEND_HEIGHT = 30;
const LEGEND_WIDTH = 190;
const FONT = "10px sans-serif";

/**
 * @typedef {object} Picture
 * @property {HRV} hrv
 * @property {number[]} chosen numbers of the concepts, a panel for each
 * @property {string} scale
 * @property {boolean} isDifference
 * @property {ReadonlySet<number>} outlined head positions with a frame
 */

/**
 * Draw a picture into a rectangle from the canvas's origin, in its own units; where its heads are then.
 * @param {CanvasRenderingContext2D} context
 * @param {Picture} picture
 * @param {number} width
 * @param {number} height
 * @param {string} ink
 * @returns {Arrangement}
 */
export function paintHeads(context, { hrv, chosen, scale: scaleName, isDifference, outlined }, width, height, ink) {
  const rows = chosen.map((row) => /** @type {Float32Array} */ (hrv.rows[row]));
  const scale = isDifference ? differenceScale(rows) : scaleOf(scaleName, rows);
  const arrangement = arrange(gridOf(hrv.layers), chosen.length, width, height - LEGEND_HEIGHT);
  const { cellWidth, cellHeight } = arrangement;
  // Cells too small for a gutter overlap a little, or the page's background would show between them.
  const gutter = Math.min(cellWidth, cellHeight) >= 7 ? 1 : -0.3;
  context.font = FONT;
  context.textBaseline = "alphabetic";
  rows.forEach((row, panel) => {
    const places = scale.places(row);
    const corner = arrangement.panels[panel] ?? { x: 0, y: 0 };
    for (const { layer, y } of arrangement.grid.rows) {
      for (let head = 0; head < layer.heads; head++) {
        context.fillStyle = rampColor(places[layer.first + head] ?? 0);
        const [left, top] = [corner.x + head * cellWidth, corner.y + y * cellHeight];
        context.fillRect(left, top, cellWidth - gutter, cellHeight - gutter);
      }
    }
    const nameWidth = arrangement.grid.width * arrangement.cellWidth + PANEL_GAP - 2;
    context.fillStyle = ink;
    context.textAlign = "left";
    context.fillText(fitted(context, hrv.concepts[chosen[panel] ?? 0] ?? "", nameWidth), corner.x, corner.y - 4);
    for (const position of outlined) outline(context, cellOf(arrangement, panel, position), gutter);
    if (corner.x === arrangement.left) paintBlocks(context, arrangement, corner.y, ink);
  });
  paintLegend(context, scale.ticks, arrangement.left, height - LEGEND_HEIGHT + 6, ink);
  return arrangement;
}

/**
 * The names of the blocks beside a panel, as many as have room.
 * @param {CanvasRenderingContext2D} context
 * @param {Arrangement} arrangement
 * @param {number} top
 * @param {string} ink
 */
function paintBlocks(context, { grid, cellHeight, left }, top, ink) {
  context.fillStyle = ink;
  context.textAlign = "right";
  let free = top - 5;
  for (const { name, y, height } of grid.blocks) {
    const baseline = top + (y + height / 2) * cellHeight + 4;
    if (baseline - 9 < free) continue;
    context.fillText(name, left - 4, baseline);
    free = baseline + 1;
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {readonly { place: number, text: string }[]} ticks
 * @param {number} left
 * @param {number} top
 * @param {string} ink
 */
function paintLegend(context, ticks, left, top, ink) {
  for (let x = 0; x < LEGEND_WIDTH; x++) {
    context.fillStyle = rampColor((2 * x) / (LEGEND_WIDTH - 1) - 1);
    context.fillRect(left + x, top, 1.3, 8);
  }
  context.fillStyle = ink;
  context.textAlign = "center";
  let free = -Infinity;
  for (const { place, text } of ticks) {
    const x = left + ((place + 1) / 2) * LEGEND_WIDTH;
    const half = context.measureText(text).width / 2;
    if (x - half < free) continue;
    context.fillText(text, x, top + 19);
    free = x + half + 4;
  }
}

/**
 * A frame that is seen on light and on dark cells.
 * @param {CanvasRenderingContext2D} context
 * @param {{ x: number, y: number, width: number, height: number }} cell
 * @param {number} gutter
 */
function outline(context, { x, y, width, height }, gutter) {
  for (const [color, inset] of /** @type {const} */ ([["#ffffff", 0.5], ["#000000", 1.5]])) {
    context.strokeStyle = color;
    context.lineWidth = 1;
    const size = [width - gutter - 2 * inset, height - gutter - 2 * inset];
    context.strokeRect(x + inset, y + inset, Math.max(1, size[0] ?? 1), Math.max(1, size[1] ?? 1));
  }
}

/**
 * A text, cut to a width.
 * @param {CanvasRenderingContext2D} context
 * @param {string} text
 * @param {number} width
 */
function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let length = text.length - 1;
  while (length > 0 && context.measureText(`${text.slice(0, length)}…`).width > width) length--;
  return `${text.slice(0, length)}…`;
}
