"""Where the host's menu lists the nodes."""

CATEGORY = "HRV"
