"""Published .npy pairs: what is read, what is refused, and that nothing in a file is ever run."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.families import FAMILIES
from hrv_pack.hrv.relevance.published import hrv_from_npy
from hypothesis import given
from hypothesis import strategies as st
from pack_import import PACK_ROOT

PUBLISHED = PACK_ROOT.parent / "shared" / "data" / "published"

LAYOUT = FAMILIES[0].layout()
CONCEPTS = ("Color", "Shape", "Size")
VALUES = np.random.default_rng(0).exponential(size=(3, 128)).astype(np.float32)
NAMES = np.array(LAYOUT.head_names())


def npy(array: np.ndarray, version: tuple[int, int] | None = None, *, pickles: bool = False) -> bytes:
    """What NumPy writes for an array."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=pickles)
    return file.getvalue()


class Trap:
    """Fails the test when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize(
    "values",
    [VALUES, VALUES.astype(np.float64), VALUES.astype(np.float16), VALUES.astype(">f4"), np.asfortranarray(VALUES)],
    ids=["float32", "float64", "float16", "big-endian", "column-major"],
)
def test_arrays_as_numpy_writes_them(values: np.ndarray, version: tuple[int, int]) -> None:
    hrv = hrv_from_npy(npy(values, version), npy(NAMES, version), CONCEPTS, {"model": "mine"})
    np.testing.assert_array_equal(hrv.values, values.astype(np.float32))
    assert (hrv.concepts, hrv.layout, hrv.evidence) == (CONCEPTS, LAYOUT, None)
    assert hrv.provenance == {"model": "mine"}


@pytest.mark.parametrize(("model", "family"), [("sd_v1_4", FAMILIES[0]), ("sd_xl_base_1_0", FAMILIES[2])])
def test_the_authors_files_are_read_where_they_are_at_hand(model: str, family: Any) -> None:
    vectors, names = (PUBLISHED / f"{model}.{part}.npy" for part in ("category_vectors", "head_index"))
    if PUBLISHED.exists():
        data, index = vectors.read_bytes(), names.read_bytes()
    else:
        layout = family.layout()
        data = npy(np.full((34, layout.head_count), 1, dtype=np.float32))
        index = npy(np.array(layout.head_names()))
    concepts = [f"Concept {number}" for number in range(34)]
    hrv = hrv_from_npy(data, index, concepts)
    assert hrv.layout == family.layout()
    np.testing.assert_array_equal(hrv.values, np.load(io.BytesIO(data), allow_pickle=False))
    np.testing.assert_allclose(hrv.values.sum(axis=1), hrv.layout.head_count, rtol=1e-5)


GOOD, GOOD_NAMES = npy(VALUES), npy(NAMES)
PICKLED = npy(np.array([Trap()], dtype=object), pickles=True)


@pytest.mark.parametrize(
    ("vectors", "names", "message"),
    [
        (PICKLED, GOOD_NAMES, "vectors file holds Python objects .a pickle"),
        (GOOD, PICKLED, "head_index file holds Python objects"),
        (b"", GOOD_NAMES, "vectors file is not an .npy file"),
        (b"PK\x03\x04" + bytes(60), GOOD_NAMES, "vectors file is not an .npy file"),
        (GOOD[:11], GOOD_NAMES, "vectors file is not an .npy file"),
        (GOOD[:40], GOOD_NAMES, "header"),
        (GOOD[:-1], GOOD_NAMES, "should have 1536 bytes of data, but it has 1535"),
        (GOOD + b"\0", GOOD_NAMES, "but it has 1537"),
        (GOOD.replace(b"(3, 128)", b"(9**9, )"), GOOD_NAMES, "header"),
        (GOOD.replace(b"(3, 128)", b"(3, 999)"), GOOD_NAMES, "should have 11988 bytes"),
        (GOOD_NAMES, GOOD, "should hold numbers on 2 axes.*may be swapped"),
        (GOOD, GOOD, "should hold texts on one axis"),
        (npy(VALUES[:2]), GOOD_NAMES, "2 rows, but there are names for 3 concepts"),
        (npy(VALUES[:, :64]), GOOD_NAMES, "3 concepts x 128 heads, but they are 3 x 64"),
        (npy(VALUES[:0]), GOOD_NAMES, r"shape \[0, 128\]"),
        (npy(-VALUES), GOOD_NAMES, "not be negative"),
        (npy(VALUES * np.nan), GOOD_NAMES, "NaN"),
        (npy(VALUES.astype(np.complex64)), GOOD_NAMES, "should hold numbers"),
        (npy(np.zeros(3, dtype=[("a", "<f4")])), GOOD_NAMES, "doesn't have the header of a plain array"),
        (GOOD, npy(NAMES[::-1]), "128 head names"),
        (GOOD, npy(NAMES.astype(">U30")[:5]), r"5 head names \(5 'down'\)"),
        (GOOD, GOOD_NAMES[:-4] + b"\xff\xff\xff\x7f", "characters that don't occur"),
    ],
)
def test_what_is_no_such_pair_is_refused(vectors: bytes, names: bytes, message: str) -> None:
    with pytest.raises(HRVError, match=message):
        hrv_from_npy(vectors, names, CONCEPTS)


@given(data=st.data())
def test_damaged_files_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    damaged = bytearray(GOOD if data.draw(st.booleans()) else GOOD_NAMES)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(damaged), 140) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    for vectors, names in ((bytes(damaged), GOOD_NAMES), (GOOD, bytes(damaged))):
        try:
            hrv = hrv_from_npy(vectors, names, CONCEPTS)
        except HRVError:
            continue
        assert hrv.values.shape == (3, 128)
