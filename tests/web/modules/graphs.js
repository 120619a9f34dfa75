// Small graphs as the page has them, written as the links into each node.

let nextLink = 1;

/** A graph of nodes; `wire(from, slot, to, input)` links them, ids being those of the nodes, -10 a subgraph's inputs. */
export function graphOf(nodes, { inputs = [], outputs = [] } = {}) {
  const links = new Map();
  const graph = {
    nodes,
    inputs: inputs.map((name) => ({ name })),
    outputs: outputs.map((name) => ({ name, linkIds: [] })),
    getNodeById: (id) => nodes.find((node) => node.id === id) ?? null,
    getLink: (id) => links.get(id),
    wire(from, slot, to, input) {
      const id = nextLink++;
      links.set(id, { id, origin_id: from, origin_slot: slot });
      if (to === -20) graph.outputs.find(({ name }) => name === input).linkIds.push(id);
      else graph.getNodeById(to).inputs.find(({ name }) => name === input).link = id;
      return graph;
    },
  };
  for (const node of nodes) node.graph = graph;
  return graph;
}

/** A node with inputs and outputs written as "name" or "name:TYPE". */
export function nodeOf(id, type, inputs = [], outputs = ["hrv:HRV"], rest = {}) {
  const slot = (text) => ({ name: text.split(":")[0], type: text.split(":")[1] ?? "HRV", link: null });
  const { values = {}, ...others } = rest;
  const widgets = Object.entries(values).map(([name, value]) => ({ name, value }));
  return { id, type, mode: 0, inputs: inputs.map(slot), outputs: outputs.map(slot), widgets, ...others };
}
