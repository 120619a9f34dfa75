// Elements at the foot of a node that the user opens and closes. A node whose panel was never opened is as without it.

import { app } from "../../../scripts/app.js";
import { drawNewElements } from "./page.js";
import { watch } from "./watch.js";

/** @import { PageNode } from "./page.js" */

/**
 * @typedef {object} Content
 * @property {HTMLElement} element
 * @property {() => void} update called now and then
 * @property {() => void} remove
 */

/**
 * @typedef {object} Panel
 * @property {string} name of its widget, which no input has, and of the node's property that keeps its state
 * @property {string} title what is shown or hidden
 * @property {number} width of the node at least, when it is opened
 * @property {number} height by which the node grows
 * @property {number} minHeight of the element
 * @property {ReadonlySet<string>} openWhenNew classes of nodes that have it open when they are added by hand
 * @property {(node: PageNode) => boolean} isFor
 * @property {(node: PageNode) => Content} make
 */

/** @typedef {{ open: boolean, closedHeight?: number } & Record<string, unknown>} Kept */

/** @type {WeakMap<PageNode, Map<string, Content>>} */
const contents = new WeakMap();

/**
 * Give a new node a panel, closed unless its workflow has it open.
 * @param {PageNode} node
 * @param {Panel} panel
 */
export function addPanel(node, panel) {
  if (!panel.isFor(node)) return;
  contents.set(node, contents.get(node) ?? new Map());
  let isNew = true;
  const configured = node.onConfigure;
  node.onConfigure = function (info) {
    isNew = false;
    configured?.call(this, info);
  };
  const removed = node.onRemoved;
  node.onRemoved = function () {
    contents.get(node)?.get(panel.name)?.remove();
    removed?.call(this);
  };
  watch(node, () => {
    if (isNew && panel.openWhenNew.has(String(node.comfyClass)) && !kept(node, panel)) setOpen(node, panel, true);
    isNew = false;
    if (isOpen(node, panel)) show(node, panel);
    else hide(node, panel);
  });
}

/**
 * What the workflow keeps of a node's panel, if it was ever opened.
 * @param {PageNode} node
 * @param {Panel} panel
 * @returns {Kept | undefined}
 */
export function kept(node, panel) {
  return /** @type {any} */ (node.properties)[panel.name];
}

/**
 * @param {PageNode} node
 * @param {Panel} panel
 * @param {Record<string, unknown>} part
 */
export function keep(node, panel, part) {
  node.properties[panel.name] = /** @type {any} */ ({ ...kept(node, panel), ...part });
  node.graph?.change();
}

/**
 * @param {PageNode} node
 * @param {Panel} panel
 */
export function isOpen(node, panel) {
  return Boolean(kept(node, panel)?.open);
}

/**
 * Open or close a panel; the node grows and shrinks by it.
 * @param {PageNode} node
 * @param {Panel} panel
 * @param {boolean} open
 */
export function setOpen(node, panel, open) {
  if (isOpen(node, panel) === open) return;
  const [width, height] = node.size;
  keep(node, panel, open ? { open, closedHeight: height } : { open });
  if (open) {
    show(node, panel);
    node.setSize([Math.max(width, panel.width), height + panel.height]);
  } else {
    hide(node, panel);
    node.setSize([width, kept(node, panel)?.closedHeight ?? height]);
  }
  node.setDirtyCanvas(true, true);
}

/**
 * @param {PageNode} node
 * @param {Panel} panel
 */
function show(node, panel) {
  const content = contents.get(node)?.get(panel.name) ?? opened(node, panel);
  content.update();
}

/**
 * @param {PageNode} node
 * @param {Panel} panel
 */
function hide(node, panel) {
  const content = contents.get(node)?.get(panel.name);
  if (!content) return;
  contents.get(node)?.delete(panel.name);
  content.remove();
  const widget = node.widgets?.find(({ name }) => name === panel.name);
  if (widget) node.removeWidget(widget);
}

/**
 * @param {PageNode} node
 * @param {Panel} panel
 */
function opened(node, panel) {
  const content = panel.make(node);
  contents.get(node)?.set(panel.name, content);
  const widget = node.addDOMWidget(panel.name, "HRV_PANEL", content.element, {
    serialize: false,
    hideInPanel: true,
    getMinHeight: () => panel.minHeight,
  });
  widget.serialize = false;
  drawNewElements();
  content.element.addEventListener("wheel", zoomGraph, { passive: false });
  content.element.addEventListener("keydown", (event) => {
    if (["Delete", "Backspace"].includes(event.key)) event.stopPropagation(); // it would delete the node
  });
  return content;
}

/**
 * Over an element the classic canvas does not hear the wheel; Nodes 2.0 does.
 * @param {WheelEvent} event
 */
function zoomGraph(event) {
  if (LiteGraph.vueNodesMode) return;
  event.preventDefault();
  event.stopPropagation();
  app.canvas.canvas.dispatchEvent(new WheelEvent(event.type, event));
}
