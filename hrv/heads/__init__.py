"""Head positions: layouts, the language for sets of them, layouts of known families."""
