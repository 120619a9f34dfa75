// Colors of the pack's sockets and their wires.

import { app } from "../../../scripts/app.js";
import { addStyle } from "./styles.js";

/** By type; none is near one of the host's own, and all are legible on dark and light grounds. */
const COLORS = {
  HRV: "#26b99a",
  HRV_CONCEPTS: "#9ab83a",
  HRV_SCORER: "#b08d74",
  HRV_EXPERIMENT: "#5a8fc8",
  HRV_EXCITEMENT_REPORT: "#8e86c9",
};

/** Color the sockets in both renderers; a palette that has colors of its own for them keeps those. */
export function colorSockets() {
  const { canvas } = app;
  const wires = /** @type {any} */ (canvas.constructor).link_type_colors;
  for (const [type, color] of Object.entries(COLORS)) {
    for (const colors of [canvas.default_connection_color_byType, wires]) setDefault(colors, type, color);
  }
  const rules = Object.entries(COLORS).map(([type, color]) => `--color-datatype-${type}: ${color};`);
  addStyle("hrv-socket-colors", `:root { ${rules.join(" ")} }`);
}

/**
 * Give a table of colors one that stands where it would have none: the host empties all entries for each palette.
 * @param {Record<string, string>} colors
 * @param {string} type
 * @param {string} color
 */
function setDefault(colors, type, color) {
  let chosen = colors[type] ?? "";
  Object.defineProperty(colors, type, {
    get: () => chosen || color,
    set: (value) => (chosen = value),
    enumerable: true,
    configurable: true,
  });
}
