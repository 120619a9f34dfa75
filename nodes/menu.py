"""Where the host's menu lists the nodes: a group for each job, under one name."""

CONTROL = "HRV/control"
"""What words do in which heads."""

EDIT = "HRV/edit"
"""An image changed by its prompt."""

MAKE = "HRV/make"
"""A new HRV of a model."""

FILES = "HRV/files"
"""HRVs that are there."""

COMBINE = "HRV/combine"
"""HRVs of HRVs."""

LOOK = "HRV/look"
"""What an HRV says."""

PROMPT = "HRV/prompt"
"""Prompts whose words can be named."""

TEST = "HRV/test"
"""Whether an HRV holds."""
