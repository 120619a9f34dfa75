// A heat map with its controls: choose a concept and a scale, look at single heads, save a picture or a table.

import { cellOf, headAt, neighbour } from "./head_grid.js";
import { headName, ranks, toCSV, topConcepts } from "./heads.js";
import { paintHeads } from "./paint_heads.js";
import { SCALES, short } from "./scales.js";
import { addStyle } from "./styles.js";
import { say } from "./texts.js";

/** @import { Arrangement } from "./head_grid.js" */
/** @import { HRV } from "./heads.js" */
/** @import { Picture } from "./paint_heads.js" */

/**
 * @typedef {object} State what the user chose; kept in the workflow
 * @property {string} [concept] a name, or ALL; if absent, what the node says
 * @property {string} [scale]
 * @property {string} [show] one of the shown HRVs
 */

/**
 * @typedef {object} Shown
 * @property {Map<string, { hrv: HRV, isDifference: boolean }>} hrvs by what they are called
 * @property {string} message what to say if there is none
 * @property {string | null} concept what the node's own field says
 * @property {ReadonlySet<number>} outlined
 */

/**
 * @typedef {object} Actions
 * @property {(state: State) => void} onState
 * @property {(hrv: HRV, position: number) => Promise<string>} onHead what a click on a head did
 */

export const ALL = "*";
const SCALE_NAMES = /** @type {Record<string, () => string>} */ ({
  relevance: () => say("relevance (doublings)"),
  linear: () => say("relevance (linear)"),
  rank: () => say("rank"),
});
const MOST_PANELS = 12; // more concepts than these are shown one at a time unless all are asked for
const PICTURE_PIXELS = 2000;
const KEPT_KEYS = new Set(["Enter", " ", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"]);

const STYLE = `
.hrv-heads { display: flex; flex-direction: column; gap: 4px; width: 100%; height: 100%; min-height: 0; box-sizing: border-box;
  font: 11px sans-serif; color: var(--input-text, #ddd); overflow: hidden; }
.hrv-heads-bar { display: flex; gap: 4px; flex: none; }
.hrv-heads-bar select, .hrv-heads-bar button { font: inherit; color: inherit; background: var(--comfy-input-bg, #222);
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 4px; padding: 2px 4px; min-width: 0; height: 22px; }
.hrv-heads-bar select { flex: 1 1 0; text-overflow: ellipsis; }
.hrv-heads-bar button { cursor: pointer; }
.hrv-heads-stage { position: relative; flex: 1 1 0; min-height: 0; overflow: hidden; }
.hrv-heads-stage canvas { position: absolute; inset: 0; width: 100%; height: 100%; cursor: crosshair; }
.hrv-heads-cursor { position: absolute; display: none; pointer-events: none; box-sizing: border-box; outline: 2px solid #fff;
  box-shadow: 0 0 0 3px #000; }
.hrv-heads-says { flex: none; height: 28px; line-height: 14px; overflow: hidden; }
.hrv-heads :focus-visible { outline: 2px solid var(--p-primary-color, #4af); outline-offset: -2px; }
`;

/** A heat map in an element of its own. */
export class HeatMapView {
  /** @param {Actions} actions */
  constructor(actions) {
    addStyle("hrv-heads-style", STYLE);
    this.actions = actions;
    /** @type {State} */
    this.state = {};
    /** @type {Shown} */
    this.shown = { hrvs: new Map(), message: "", concept: null, outlined: new Set() };
    /** @type {Arrangement | null} */
    this.arrangement = null;
    this.cursor = { panel: 0, position: 0 };
    this.isMarked = false;
    this.ink = "";

    this.element = made("div", "hrv-heads");
    this.concept = menu(say("Concept"), (concept) => this.choose({ concept: concept || undefined }));
    this.scale = menu(say("Scale"), (scale) => this.choose({ scale }));
    this.which = menu("HRV", (show) => this.choose({ show }));
    const bar = made("div", "hrv-heads-bar");
    bar.append(this.which, this.concept, this.scale, button("PNG", say("Save the picture"), () => this.savePicture()), button("CSV", say("Save the numbers"), () => this.saveTable())); // prettier-ignore
    this.canvas = made("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.mark = made("div", "hrv-heads-cursor");
    this.stage = made("div", "hrv-heads-stage");
    this.stage.append(this.canvas, this.mark);
    this.says = made("div", "hrv-heads-says");
    this.says.setAttribute("role", "status");
    this.element.append(bar, this.stage, this.says);

    this.canvas.addEventListener("pointermove", (event) => this.pointAt(event));
    this.canvas.addEventListener("pointerleave", () => this.say(null));
    this.canvas.addEventListener("click", (event) => this.pointAt(event) && void this.take());
    this.element.addEventListener("keydown", (event) => this.pressed(event));
    // A press here is no drag of the node.
    for (const kind of ["pointerdown", "mousedown"]) this.element.addEventListener(kind, (event) => event.stopPropagation());
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.stage);
  }

  remove() {
    this.resized.disconnect();
    this.element.remove();
  }

  /**
   * Show something else if it is something else.
   * @param {Shown} shown
   * @param {State} state
   */
  update(shown, state) {
    const ink = getComputedStyle(this.element).color;
    const before = [...this.shown.hrvs].flatMap(([name, { hrv }]) => [name, hrv]);
    const after = [...shown.hrvs].flatMap(([name, { hrv }]) => [name, hrv]);
    const same =
      before.length === after.length &&
      before.every((part, number) => part === after[number]) &&
      this.shown.message === shown.message &&
      this.shown.concept === shown.concept &&
      [...this.shown.outlined].join() === [...shown.outlined].join() &&
      JSON.stringify(state) === JSON.stringify(this.state) &&
      ink === this.ink;
    if (same) return;
    const hadPicture = this.picture() !== null;
    Object.assign(this, { shown, state, ink });
    if (!this.picture()) this.says.textContent = shown.message;
    else if (!hadPicture) this.says.textContent = "";
    this.fillMenus();
    this.draw();
  }

  /** @param {State} part */
  choose(part) {
    this.state = { ...this.state, ...part };
    this.actions.onState(this.state);
    this.fillMenus();
    this.draw();
  }

  /** What is to be drawn, or null. */
  picture() {
    const { hrvs, concept, outlined } = this.shown;
    const found = hrvs.get(this.state.show ?? "") ?? [...hrvs.values()][0];
    if (!found) return null;
    const { hrv, isDifference } = found;
    const every = hrv.concepts.map((_, row) => row);
    const wanted = this.state.concept ?? concept ?? (every.length <= MOST_PANELS ? ALL : "");
    const row = hrv.concepts.findIndex((name) => name.toLowerCase() === wanted.toLowerCase());
    const chosen = wanted === ALL ? every : [Math.max(0, row)];
    return /** @type {Picture} */ ({ hrv, chosen, scale: this.scaleName(), isDifference, outlined });
  }

  scaleName() {
    return SCALES.includes(this.state.scale ?? "") ? String(this.state.scale) : "relevance";
  }

  fillMenus() {
    const picture = this.picture();
    const { hrvs, concept } = this.shown;
    fill(this.which, [...hrvs.keys()].map((name) => [name, name]), this.state.show ?? [...hrvs.keys()][0] ?? "");
    this.which.style.display = hrvs.size > 1 ? "" : "none";
    const chosen = picture?.chosen.length === 1 ? (picture.hrv.concepts[picture.chosen[0] ?? 0] ?? "") : ALL;
    const names = (picture?.hrv.concepts ?? []).map((name) => /** @type {[string, string]} */ ([name, name]));
    fill(
      this.concept,
      [...(concept === null ? [] : [/** @type {[string, string]} */ (["", say("as the node says")])]), [ALL, say("all concepts")], ...names],
      this.state.concept === undefined && concept !== null ? "" : chosen,
    );
    fill(this.scale, SCALES.map((name) => [name, SCALE_NAMES[name]?.() ?? name]), this.scaleName());
    this.scale.disabled = picture?.isDifference ?? false;
    this.canvas.setAttribute(
      "aria-label",
      picture
        ? say(
            "Heat map of {count} heads for {concept}. Arrow keys move from head to head; Enter takes a head into Scale Heads.",
            { count: picture.hrv.headCount, concept: chosen === ALL ? say("all concepts") : chosen },
          )
        : say("Heat map"),
    );
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return;
    const sharpness = 2 * (window.devicePixelRatio || 1); // legible when the graph is zoomed in
    this.canvas.width = width * sharpness;
    this.canvas.height = height * sharpness;
    const picture = this.picture();
    this.arrangement = null;
    this.placeMark();
    const context = this.canvas.getContext("2d");
    if (!picture || !context) return;
    context.scale(sharpness, sharpness);
    this.arrangement = paintHeads(context, picture, width, height, this.ink || "#888");
    this.placeMark();
  }

  /** Frame the head that is looked at, if any is. */
  placeMark() {
    const cell = this.isMarked && this.arrangement && cellOf(this.arrangement, this.cursor.panel, this.cursor.position);
    this.mark.style.display = cell ? "block" : "none";
    if (!cell) return;
    Object.assign(this.mark.style, {
      left: `${cell.x}px`,
      top: `${cell.y}px`,
      width: `${cell.width}px`,
      height: `${cell.height}px`,
    });
  }

  /**
   * Look at the head under the pointer; whether there is one.
   * @param {MouseEvent} event
   */
  pointAt(event) {
    const box = this.stage.getBoundingClientRect();
    // The page scales what is on the graph.
    const zoom = box.width / this.stage.clientWidth || 1;
    const found = this.arrangement && headAt(this.arrangement, (event.clientX - box.left) / zoom, (event.clientY - box.top) / zoom);
    if (found) this.cursor = found;
    this.say(found);
    return Boolean(found);
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (!KEPT_KEYS.has(event.key)) return;
    event.stopPropagation(); // arrows here do not move the node
    if (event.target !== this.canvas || !this.arrangement) return;
    const steps = /** @type {Record<string, [number, number]>} */ ({
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, -1],
      ArrowDown: [0, 1],
    });
    const step = steps[event.key];
    if (step) {
      this.cursor = { ...this.cursor, position: neighbour(this.arrangement.grid, this.cursor.position, ...step) };
      this.say(this.cursor);
    } else if (event.key === "Enter" || event.key === " ") {
      void this.take();
    } else return;
    event.preventDefault();
  }

  /**
   * Say what is known of a head, or of none.
   * @param {{ panel: number, position: number } | null} place
   */
  say(place) {
    const picture = this.picture();
    const row = picture?.hrv.rows[picture.chosen[place?.panel ?? 0] ?? 0];
    this.isMarked = place !== null;
    this.placeMark();
    if (!place || !picture || !row) {
      this.says.textContent = picture ? "" : this.shown.message;
      return;
    }
    const { layer, head } = headName(picture.hrv, place.position);
    const concept = picture.hrv.concepts[picture.chosen[place.panel] ?? 0];
    const rank = ranks(row)[place.position];
    const most = topConcepts(picture.hrv, place.position, 3).map(({ concept, value }) => `${concept} ${short(value)}`);
    const value = row[place.position] ?? 0;
    const values = { layer, head, value: short(value), concept: concept ?? "", rank: rank ?? 0, count: row.length, most: most.join(", ") };
    this.says.textContent = picture.isDifference
      ? say("{layer} head {head}: {value} more for {concept}, rank {rank} of {count}. Most for {most}.", values)
      : say("{layer} head {head}: {value} for {concept}, rank {rank} of {count}. Most for {most}.", values);
  }

  async take() {
    const picture = this.picture();
    if (picture) this.says.textContent = await this.actions.onHead(picture.hrv, this.cursor.position);
  }

  savePicture() {
    const picture = this.picture();
    if (!picture) return;
    const { clientWidth, clientHeight } = this.stage;
    const scale = PICTURE_PIXELS / Math.max(clientWidth, clientHeight);
    const canvas = made("canvas");
    Object.assign(canvas, { width: clientWidth * scale, height: clientHeight * scale });
    const context = canvas.getContext("2d");
    if (!context) return;
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.scale(scale, scale);
    paintHeads(context, picture, clientWidth, clientHeight, "#202124");
    canvas.toBlob((blob) => blob && save("heads.png", blob));
  }

  saveTable() {
    const picture = this.picture();
    if (picture) save("heads.csv", new Blob([toCSV(picture.hrv, picture.chosen)], { type: "text/csv" }));
  }
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} [className]
 */
function made(tag, className = "") {
  const element = document.createElement(tag);
  element.className = className;
  return element;
}

/**
 * @param {string} label
 * @param {(value: string) => void} onChange
 */
function menu(label, onChange) {
  const select = made("select");
  select.setAttribute("aria-label", label);
  select.title = label;
  select.addEventListener("change", () => onChange(select.value));
  return select;
}

/**
 * @param {string} text
 * @param {string} title
 * @param {() => void} onClick
 */
function button(text, title, onClick) {
  const element = made("button");
  element.type = "button";
  element.textContent = text;
  element.title = title;
  element.setAttribute("aria-label", `${title} (${text})`);
  element.addEventListener("click", onClick);
  return element;
}

/**
 * @param {HTMLSelectElement} select
 * @param {[string, string][]} options values and texts
 * @param {string} value
 */
function fill(select, options, value) {
  const there = [...select.options].map(({ value, text }) => [value, text]);
  if (JSON.stringify(there) !== JSON.stringify(options)) {
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  }
  select.value = value;
}

/**
 * Let the browser save a file.
 * @param {string} name
 * @param {Blob} content
 */
function save(name, content) {
  const link = made("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
