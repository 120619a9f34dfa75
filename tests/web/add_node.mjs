/** To be run in the page: define `addNode`, which adds a node to the graph of the workflow, with values of its widgets. */
export function defineAddNode() {
  window.addNode = (type, [x, y] = [0, 0], values = {}) => {
    const node = LiteGraph.createNode(type);
    node.pos = [x, y];
    app.rootGraph.add(node);
    for (const [name, value] of Object.entries(values)) node.widgets.find((widget) => widget.name === name).value = value;
    return node;
  };
}
