"""Texts on the nodes of the page, and how the nodes of a graph are wired."""
