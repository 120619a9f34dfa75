"""Deal the pieces of one process's work to a Ray cluster; started by that process, which it talks to over its pipes.

A process of its own because Ray takes over signals, and ends its process when a cluster's head is gone.
"""

from __future__ import annotations

import os
import sys

from pack_import import import_pack


def main() -> None:
    # What Ray prints must not get between the messages.
    writing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import_pack()
    from hrv_pack.host.work.cluster.dealer import deal_for
    from hrv_pack.host.work.cluster.messages import Channel

    deal_for(Channel(sys.stdin.buffer, writing))


if __name__ == "__main__":
    main()
