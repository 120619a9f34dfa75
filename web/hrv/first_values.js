// What fields of new nodes begin with, where that isn't the default of their schema: a graph that was saved before the field was there means the default.

/** @import { PageNode } from "./page.js" */

/** @type {Record<string, Record<string, string>>} */
const FIRST_VALUES = { HRV_QuickCheck: { weakening: "set heads to zero (0)" } };

/**
 * Give the fields of a new node the values that they begin with; a saved graph's node has what it was saved with.
 * @param {PageNode} node
 */
export function setFirstValues(node) {
  for (const [name, first] of Object.entries(FIRST_VALUES[String(node.comfyClass)] ?? {})) {
    const field = node.widgets?.find((widget) => widget.name === name);
    if (!field) continue;
    const older = field.value;
    field.value = first;
    const configured = node.onConfigure;
    node.onConfigure = function (info) {
      const place = node.widgets?.filter(({ serialize }) => serialize !== false).indexOf(field) ?? 0;
      if ((info.widgets_values?.length ?? 0) <= place) field.value = older;
      configured?.call(this, info);
    };
  }
}
