// Curves on a node, drawn by uPlot (vendor/).

import { aligned } from "./status.js";
import { addStyle } from "./styles.js";
import { say, told } from "./texts.js";
import uPlot from "./vendor/uPlot.esm.js";

/** @import { Curves } from "./status.js" */

const STYLE = `
.hrv-curves { position: relative; overflow: hidden; }
.hrv-curves .uplot { width: 100%; } /* so wide is the legend before the plot is drawn */
.hrv-curves .u-legend { font-size: 11px; text-align: left; }
.hrv-curves .u-inline tr { margin-right: 8px; }
.hrv-curves .u-series > * { padding: 0 2px; }
.hrv-curves .u-series th { cursor: default; font-weight: normal; }
`;

// Blue, orange, dark red and further ones that color-blind eyes tell apart, legible in both themes.
const COLORS = ["#4f8fd0", "#dc7933", "#b0553c", "#8a8f98", "#c9a227", "#6fb1a0", "#b07cc6", "#7c9c4b"];
const LEAST_HEIGHT = 40;

/** Curves in an element of its own, as large as that is. */
export class CurvesView {
  constructor() {
    addStyle("hrv-curves-style", STYLE);
    void sheet().then(() => this.fit());
    this.element = document.createElement("div");
    this.element.className = "hrv-curves";
    /** @type {Curves | null} */
    this.curves = null;
    /** @type {uPlot | null} */
    this.plot = null;
    this.shape = "";
    this.resized = new ResizeObserver(() => this.fit());
    this.resized.observe(this.element);
    this.element.addEventListener("pointermove", (event) => this.pointAt(event));
    this.element.addEventListener("pointerleave", () => this.plot?.setCursor({ left: -10, top: -10 }));
  }

  remove() {
    this.resized.disconnect();
    this.plot?.destroy();
    this.element.remove();
  }

  /**
   * Show other curves if they are others.
   * @param {Curves | null} curves
   */
  update(curves) {
    const ink = getComputedStyle(this.element).color;
    const isDrawn = Boolean(curves?.curves.some(({ up }) => up.some((value) => value !== null)));
    const shape = curves && isDrawn ? JSON.stringify([curves.across, curves.up, curves.curves.map(({ name }) => name), ink]) : "";
    if (shape !== this.shape) {
      this.plot?.destroy();
      this.plot = curves && shape ? this.draw(curves, ink) : null;
      this.shape = shape;
      this.element.setAttribute("role", "img");
      this.element.setAttribute("aria-label", curves ? say("{up} over {across}", { up: told(curves.up), across: told(curves.across) }) : "");
      this.fit();
    } else if (curves && curves !== this.curves) {
      this.plot?.setData(aligned(curves));
    }
    this.curves = curves;
  }

  /**
   * @param {Curves} curves
   * @param {string} ink
   */
  draw(curves, ink) {
    const axis = { stroke: ink, grid: { stroke: "#8884", width: 1 }, ticks: { stroke: "#8884", width: 1 }, font: "10px sans-serif" };
    return new uPlot(
      {
        width: 100,
        height: LEAST_HEIGHT,
        scales: { x: { time: false } },
        axes: [
          { ...axis, size: 24, gap: 4, ticks: { ...axis.ticks, size: 4 } },
          { ...axis, size: 40 },
        ],
        // The page scales what is on the graph, which uPlot does not know of: see pointAt.
        cursor: { drag: { x: false, y: false }, bind: { mousemove: () => null, mouseleave: () => null } },
        series: [
          { label: told(curves.across) },
          ...curves.curves.map(({ name }, number) => ({
            label: curves.curves.length > 1 ? told(name) : `${told(curves.up)}, ${told(name)}`,
            stroke: COLORS[number % COLORS.length] ?? ink,
            width: 2,
            spanGaps: true,
            value: (/** @type {uPlot} */ _, /** @type {number | null} */ value) => (value === null ? "" : String(Number(value.toPrecision(3)))),
          })),
        ],
      },
      aligned(curves),
      this.element,
    );
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!this.plot || !width || !height) return;
    const legend = /** @type {HTMLElement | null} */ (this.element.querySelector(".u-legend"));
    this.plot.setSize({ width, height: Math.max(LEAST_HEIGHT, height - (legend?.offsetHeight ?? 0)) });
  }

  /** @param {PointerEvent} event */
  pointAt(event) {
    if (!this.plot) return;
    const box = this.plot.over.getBoundingClientRect();
    const zoom = box.width / this.plot.over.clientWidth || 1;
    this.plot.setCursor({ left: (event.clientX - box.left) / zoom, top: (event.clientY - box.top) / zoom });
  }
}

/** @type {Promise<unknown> | undefined} */
let loaded;

/** uPlot's style sheet, without which its parts have other sizes. */
function sheet() {
  const link = document.createElement("link");
  loaded ??= new Promise((resolve) => {
    link.addEventListener("load", resolve);
    Object.assign(link, { rel: "stylesheet", href: new URL("./vendor/uPlot.min.css", import.meta.url).href });
    document.head.append(link);
  });
  return loaded;
}
