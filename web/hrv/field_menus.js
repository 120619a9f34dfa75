// Text fields as menus of what can be named there. Files and prompts keep the plain string.

import { app } from "../../../scripts/app.js";
import { TYPE_A_NAME, menuEntries } from "./menu_entries.js";
import { splitNames } from "./names.js";
import { watch } from "./watch.js";

/** @import { Choices, Field } from "./menu_entries.js" */
/** @import { PageNode, PageWidget } from "./page.js" */

/**
 * @typedef {object} Known
 * @property {Choices | null} choices
 * @property {string} [why] why nothing can be chosen
 */

/**
 * Turn a text field of a new node into a menu.
 * @param {PageNode} node
 * @param {string} name
 * @param {Field} field
 * @param {(node: PageNode) => Known} choicesAt what can be named now; it is asked often
 */
export function addMenu(node, name, field, choicesAt) {
  const widget = node.widgets?.find((candidate) => candidate.name === name);
  if (widget?.type === "text") watchMenu(node, swapForMenu(node, widget), field, choicesAt);
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
 * Keep a menu's entries and its mark in step with the graph.
 * @param {PageNode} node
 * @param {PageWidget} menu
 * @param {Field} field
 * @param {(node: PageNode) => Known} choicesAt
 */
function watchMenu(node, menu, field, choicesAt) {
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
  });

  menu.callback = (chosen) => {
    if (chosen !== TYPE_A_NAME) return;
    menu.value = value;
    void app.extensionManager.dialog
      .prompt({ title: node.title, message: menu.label ?? menu.name, defaultValue: value })
      .then((/** @type {string | null} */ typed) => {
        if (typed !== null) menu.value = typed.trim();
        look();
      });
  };

  function look() {
    if (menu.value !== TYPE_A_NAME) value = String(menu.value ?? "");
    const { choices, why } = choicesAt(node);
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
  }
  watch(node, look);
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
