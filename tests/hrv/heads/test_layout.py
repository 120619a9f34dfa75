"""Head layouts: order, names, slices and what two layouts say to each other."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout, require_same_layout
from pack_import import PACK_ROOT

PUBLISHED = PACK_ROOT.parent / "shared" / "data" / "published"


def layout(down: list[tuple[int, int, int]], mid: list[int], up: list[tuple[int, int, int]]) -> HeadLayout:
    """A layout from (id, transformer blocks, heads) of the outer blocks and the middle's heads per layer."""

    def layers(block: str, entries: list[tuple[int, int, int]]) -> list[AttentionLayer]:
        return [
            AttentionLayer(block, number, index, heads) for number, depth, heads in entries for index in range(depth)
        ]

    middle = [AttentionLayer("middle", 0, index, heads) for index, heads in enumerate(mid)]
    return HeadLayout((*layers("input", down), *middle, *layers("output", up)))


SD1 = layout([(number, 1, 8) for number in (1, 2, 4, 5, 7, 8)], [8], [(number, 1, 8) for number in range(3, 12)])
SDXL = layout(
    [(4, 2, 10), (5, 2, 10), (7, 10, 20), (8, 10, 20)],
    [20] * 10,
    [(0, 10, 20), (1, 10, 20), (2, 10, 20), (3, 2, 10), (4, 2, 10), (5, 2, 10)],
)


@pytest.mark.parametrize(
    ("built", "file", "runs"),
    [
        (SD1, "sd_v1_4", [("down", 6, 8), ("mid", 1, 8), ("up", 9, 8)]),
        (
            SDXL,
            "sd_xl_base_1_0",
            [("down", 4, 10), ("down", 20, 20), ("mid", 10, 20), ("up", 30, 20), ("up", 6, 10)],
        ),
    ],
    ids=["SD 1.x", "SDXL"],
)
def test_head_names_are_the_published_ones(built: HeadLayout, file: str, runs: list[tuple[str, int, int]]) -> None:
    expected = []
    seen = {"down": 0, "mid": 0, "up": 0}
    for section, layers, heads in runs:
        for number, head in product(range(seen[section], seen[section] + layers), range(heads)):
            expected.append(f"{section}, layer: {number}, head: {head}")
        seen[section] += layers
    assert built.head_names() == expected
    published = PUBLISHED / f"{file}.head_index.npy"
    if published.exists():
        assert built.head_names() == np.load(published, allow_pickle=False).tolist()


def test_description_offsets_and_slices() -> None:
    assert SD1.describe() == "128 heads in 16 cross-attention layers (6 down, 1 mid, 9 up)"
    assert SDXL.describe() == "1300 heads in 70 cross-attention layers (24 down, 10 mid, 36 up)"
    assert layout([(0, 1, 1)], [], []).describe() == "1 head in 1 cross-attention layer (1 down)"
    assert SD1.offsets == tuple(range(0, 128, 8))
    assert SDXL.offsets[:6] == (0, 10, 20, 30, 40, 60)
    assert SDXL.head_slice(("middle", 0, 3)) == slice(40 + 400 + 60, 40 + 400 + 80)
    assert SDXL.head_slice(("output", 5, 1)) == slice(1290, 1300)
    covered = [position for layer in SDXL.layers for position in range(1300)[SDXL.head_slice(layer.key)]]
    assert covered == list(range(SDXL.head_count))


def test_names_and_keys_of_layers() -> None:
    assert [layer.name for layer in SDXL.layers[:2]] == ["down4.0", "down4.1"]
    assert AttentionLayer("middle", 0, 0, 8).name == "mid.0"
    assert AttentionLayer("output", 11, 2, 8).name == "up11.2"
    assert AttentionLayer("output", 11, 2, 8).key == ("output", 11, 2)
    assert AttentionLayer("input", 1, 0, 8).section == "down"


def test_unknown_layer_names_the_layout() -> None:
    with pytest.raises(HRVError, match=r"no cross-attention layer \('input', 3, 0\) among 128 heads"):
        SD1.head_slice(("input", 3, 0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("down", 1, 0, 8), "block must be one of input, middle, output"),
        (("input", -1, 0, 8), "id must be a whole number from 0"),
        (("input", 1, -1, 8), "transformer_index"),
        (("input", 1, 0, 0), "heads must be a whole number from 1 to 65535"),
        (("input", 1, 0, True), "heads"),
        (("input", 1, 0, 10**6), "heads"),
        (("input", 1.0, 0, 8), "id"),
        (("middle", 1, 0, 8), "middle block must have the id 0"),
    ],
)
def test_impossible_layers_are_refused(fields: tuple[str, int, int, int], message: str) -> None:
    with pytest.raises(HRVError, match=message):
        AttentionLayer(*fields)


def test_layers_out_of_order_repeated_or_missing_are_refused() -> None:
    first, second = SD1.layers[:2]
    with pytest.raises(HRVError, match=r"down1\.0 follows down2\.0"):
        HeadLayout((second, first))
    with pytest.raises(HRVError, match=r"down1\.0 follows down1\.0"):
        HeadLayout((first, first))
    with pytest.raises(HRVError, match=r"down1\.0 follows mid\.0"):
        HeadLayout((AttentionLayer("middle", 0, 0, 8), first))
    with pytest.raises(HRVError, match="at least one"):
        HeadLayout(())


def test_ids_are_ordered_as_numbers() -> None:
    assert layout([], [], [(9, 1, 8), (10, 1, 8)]).head_names()[8] == "up, layer: 1, head: 0"


def test_json_gives_the_layout_back() -> None:
    for built in (SD1, SDXL):
        assert HeadLayout.from_json(built.to_json()) == built


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "[1]",
        "[[]]",
        '[["input",1,0]]',
        '[["input",1,0,"8"]]',
        '[[["input"],1,0,8]]',
        "[" * 100_000,
    ],
)
def test_other_json_is_no_layout(text: str) -> None:
    with pytest.raises(HRVError):
        HeadLayout.from_json(text)


def test_signature_tells_layouts_apart_and_is_the_same_in_every_process() -> None:
    fewer = layout([(number, 1, 8) for number in (1, 2, 4, 5, 7, 8)], [8], [(number, 1, 8) for number in range(3, 11)])
    others = {SD1.signature, SDXL.signature, fewer.signature, layout([(1, 1, 128)], [], []).signature}
    assert len(others) == 4
    assert SD1.signature == HeadLayout(SD1.layers).signature
    code = (
        f"import sys; sys.path.insert(0, {str(PACK_ROOT / 'scripts')!r})\n"
        "from pack_import import import_pack\n"
        "import_pack()\n"
        "from hrv_pack.hrv.heads.layout import HeadLayout\n"
        f"print(HeadLayout.from_json({SD1.to_json()!r}).signature)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == SD1.signature


def test_same_layout_is_required() -> None:
    require_same_layout(SD1, HeadLayout(SD1.layers))
    with pytest.raises(HRVError, match=r"HRV: 128 heads.*model: 1300 heads.*down1\.0 with 8.*down4\.0 with 10"):
        require_same_layout(SD1, SDXL)
    shorter = HeadLayout(SD1.layers[:-1])
    with pytest.raises(HRVError, match=r"up11\.0 with 8 heads and the model no further layer"):
        require_same_layout(SD1, shorter)


def transformer(family: str, blocks: int = 28, heads: int = 16) -> HeadLayout:
    return HeadLayout(tuple(AttentionLayer("block", number, 0, heads) for number in range(blocks)), family)


def test_families_with_equal_numbers_are_told_apart() -> None:
    anima, other = transformer("anima"), transformer("pixart")
    assert anima != other and anima.signature != other.signature
    assert anima.describe() == "448 heads in 28 layers of anima (28 block)"
    with pytest.raises(HRVError, match=r"another kind of model.*of anima .*of pixart .*nothing about another's"):
        require_same_layout(anima, other)


def test_a_transformers_layout_is_written_with_its_family() -> None:
    small = transformer("anima", blocks=2, heads=3)
    assert small.to_json() == '{"family":"anima","layers":[["block",0,0,3],["block",1,0,3]]}'
    assert HeadLayout.from_json(small.to_json()) == small
    assert [layer.name for layer in small.layers] == ["block0", "block1"]
    assert small.head_names()[3] == "block, layer: 1, head: 0"


def test_a_unets_layout_is_written_without_one() -> None:
    assert SD1.to_json().startswith('[["input",1,0,8]') and SD1.family == "unet"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"family":"anima"}', "neither a list of layers nor an object"),
        ('{"family":3,"layers":[["block",0,0,3]]}', "neither a list of layers nor an object"),
        ('{"family":"An Ima","layers":[["block",0,0,3]]}', "lower-case letters"),
        ('{"family":"","layers":[["block",0,0,3]]}', "lower-case letters"),
        ('{"family":"unet","layers":[["input",0,0,3]]}', "is a list of layers alone"),
        ('{"family":"anima","layers":[["input",1,0,3]]}', "can't have the layer down1.0"),
        ('{"family":"anima","layers":[["block",1,1,3]]}', "transformer index 0, not 1"),
        ('{"family":"anima","layers":3}', "not a list of"),
        ('[["block",0,0,3]]', "'unet' can't have the layer block0"),
        ('{"family":"flux","layers":[["single",0,0,3],["double",0,0,3]]}', "forward order"),
    ],
)
def test_layouts_that_no_family_has_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(HRVError, match=sentence):
        HeadLayout.from_json(text)
