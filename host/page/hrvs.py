"""The HRVs that nodes gave, so that the page can show them after a run."""

from __future__ import annotations

from weakref import WeakValueDictionary

from ...hrv.errors import HRVError
from ...hrv.relevance.vectors import HRV

# They live as long as the host keeps the outputs of its nodes, and take no memory of their own.
_GIVEN: WeakValueDictionary[str, HRV] = WeakValueDictionary()


def remember(hrv: HRV) -> str:
    """Let :func:`given_hrv` find an HRV for as long as anything else holds it, by the digest that is returned."""
    _GIVEN[hrv.digest] = hrv
    return hrv.digest


def given_hrv(digest: str) -> HRV:
    """The HRV with this digest. Raises HRVError if nothing holds it any more."""
    hrv = _GIVEN.get(digest)
    if hrv is None:
        raise HRVError("This HRV of an earlier run is no longer in memory. Run the workflow again to see it.")
    return hrv
