"""Head Relevance Vectors: what they are, where they come from, what can be done with them."""
