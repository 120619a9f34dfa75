"""What the page asks the server: HRVs of a graph, sets of heads, tokens of a prompt."""
