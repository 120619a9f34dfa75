"""Drawing: paper, charts, matrices, grids of pictures."""
