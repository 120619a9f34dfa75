"""Tests of this folder run inside the host's own process."""

from hrv_pack.tests.support.host_process import *  # noqa: F403  (fixtures, which pytest finds by their names in here)
