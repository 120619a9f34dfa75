"""Models: the layout of their heads, their digest, and what differs in older hosts."""
