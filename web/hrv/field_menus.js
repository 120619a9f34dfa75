// Text fields as menus of what can be named there. Files and prompts keep the plain string.

import { app } from "../../../scripts/app.js";
import { menuEntries, typeAName } from "./menu_entries.js";
import { splitNames } from "./names.js";
import { asGraphNode, rootGraph } from "./page.js";
import { holderOf, placesOf } from "./sources.js";
import { watch } from "./watch.js";

/** @import { Place } from "./graph.js" */
/** @import { Choices, Field } from "./menu_entries.js" */
/** @import { PageNode, PageWidget } from "./page.js" */

/**
 * @typedef {object} Known
 * @property {Choices | null} choices
 * @property {string} [why] why nothing can be chosen
 */

/**
 * Turn a text field of a new node into a menu, and keep the menus of subgraphs that it is promoted to in step.
 * @param {PageNode} node
 * @param {string} name
 * @param {Field} field
 * @param {(places: Place[]) => Known} choicesAt what can be named in places of the node now; it is asked often
 */
export function addMenu(node, name, field, choicesAt) {
  const widget = node.widgets?.find((candidate) => candidate.name === name);
  if (widget?.type !== "text") return;
  const look = keepMenu(node, swapForMenu(node, widget), field);
  /** @type {WeakMap<PageWidget, (known: Known) => void>} */
  const promoted = new WeakMap();
  watch(node, () => {
    const places = placesOf(rootGraph(), asGraphNode(node));
    look(choicesAt(places));
    for (const place of places) {
      const holder = holderOf(place, name);
      if (!holder || holder.node === place.node) continue;
      const outer = /** @type {PageNode} */ (/** @type {unknown} */ (holder.node));
      const menu = outer.widgets?.find((candidate) => candidate.name === holder.name);
      if (menu?.type !== "combo") continue;
      const lookThere = promoted.get(menu) ?? keepMenu(outer, menu, field);
      promoted.set(menu, lookThere);
      lookThere(choicesAt([place]));
    }
  });
}

/**
 * Put a menu in the place of a text field, with its name, value and label.
 * @param {PageNode} node
 * @param {PageWidget} text
 * @returns {PageWidget}
 */
function swapForMenu(node, text) {
  const widgets = /** @type {PageWidget[]} */ (node.widgets);
  const place = widgets.indexOf(text);
  const [width, height] = node.size;
  widgets.splice(place, 1);
  /** @type {any} */
  const menu = node.addWidget("combo", text.name, /** @type {string} */ (text.value), () => {}, { values: [] });
  widgets.splice(widgets.indexOf(menu), 1);
  widgets.splice(place, 0, menu);
  Object.assign(menu, { label: text.label, tooltip: text.tooltip, advanced: text.advanced });
  node.setSize([width, height]);
  return menu;
}

/**
 * What keeps a menu's entries and its mark in step with what can be named.
 * @param {PageNode} node
 * @param {PageWidget} menu
 * @param {Field} field
 * @returns {(known: Known) => void}
 */
function keepMenu(node, menu, field) {
  const tooltip = menu.tooltip;
  let shown = "";
  let value = String(menu.value ?? "");
  let complaint = /** @type {string | null} */ (null);
  /** @type {Map<string, string>} what is shown for an entry */
  const labels = new Map();
  const options = /** @type {{ values: string[], getOptionLabel?: (value?: string | null) => string }} */ (menu.options);
  if (field.several) {
    options.getOptionLabel = (option) => labels.get(option ?? "") ?? option ?? "";
    searchLabels(menu, labels);
  }
  // The classic canvas has no mark for what is not in the menu; Nodes 2.0 frames it by itself.
  Object.defineProperty(menu, "getOutlineColor", {
    value: () => (complaint === null ? LiteGraph.WIDGET_OUTLINE_COLOR : LiteGraph.NODE_ERROR_COLOUR),
    enumerable: true, // the canvas draws a copy of a promoted one
  });

  const called = menu.callback;
  menu.callback = (chosen, ...others) => {
    if (chosen !== typeAName()) {
      called?.call(menu, chosen, ...others);
      return;
    }
    menu.value = value;
    void app.extensionManager.dialog
      .prompt({ title: node.title, message: menu.label ?? menu.name, defaultValue: value })
      .then((/** @type {string | null} */ typed) => {
        if (typed !== null) menu.value = typed.trim();
      });
  };

  return ({ choices, why }) => {
    if (menu.value !== typeAName()) value = String(menu.value ?? "");
    const seen = JSON.stringify([value, choices?.names, choices?.complaint(splitNames(value)), why]);
    if (seen === shown) return;
    shown = seen;
    const entries = menuEntries(value, choices, field);
    complaint = entries.complaint;
    labels.clear();
    for (const { option, label } of entries.options) labels.set(option, label);
    options.values = entries.options.map(({ option }) => option);
    menu.tooltip = complaint ?? why ?? tooltip;
    redraw(node, menu);
  };
}

/**
 * Open the classic canvas's menu as one of plain texts: it has a search box only then.
 * @param {PageWidget} menu
 * @param {Map<string, string>} labels
 */
function searchLabels(menu, labels) {
  /** @type {any} */ (menu).onClick = (/** @type {any} */ { e, node, canvas }) => {
    const entries = [...labels];
    new LiteGraph.ContextMenu(
      entries.map(([, label]) => label),
      {
        scale: Math.max(1, canvas.ds.scale),
        event: e,
        className: "dark",
        callback: (/** @type {string} */ chosen) => {
          const entry = entries.find(([, label]) => label === chosen);
          if (entry) /** @type {any} */ (menu).setValue(entry[0], { e, node, canvas });
        },
      },
    );
  };
}

/**
 * Let both renderers see a widget as it is now.
 * @param {PageNode} node
 * @param {PageWidget} widget
 */
function redraw(node, widget) {
  node.setDirtyCanvas(true);
  const place = node.widgets?.indexOf(widget) ?? -1;
  if (place < 0 || !LiteGraph.vueNodesMode) return;
  // Nodes 2.0 reads a widget's options when the list of widgets changes.
  node.widgets?.splice(place, 1);
  node.widgets?.splice(place, 0, widget);
}
