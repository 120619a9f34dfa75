"""Figures: sizes, colors and positions that can be read off the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hrv_pack.hrv.drawing.grid import picture_grid
from hrv_pack.hrv.drawing.paper import PAPER, RAMP
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.relevance.heat_map import _beyond, _octaves, heat_map
from hrv_pack.hrv.relevance.vectors import HRV

NEUTRAL = tuple(int(channel) for channel in RAMP[len(RAMP) // 2])
LOWEST, HIGHEST = (tuple(int(channel) for channel in RAMP[place]) for place in (0, -1))


def hrv(concepts: int, layers: int, heads: int, values: np.ndarray | None = None) -> HRV:
    """Layers of ``heads`` heads, the first of half as many, spread over the three sections."""
    third = layers // 3
    built = [AttentionLayer("input", number, 0, heads) for number in range(third)]
    built += [AttentionLayer("middle", 0, 0, heads)]
    built += [AttentionLayer("output", number, 0, heads) for number in range(layers - third - 1)]
    built[0] = AttentionLayer(built[0].block, 0, 0, max(1, heads // 2))
    layout = HeadLayout(tuple(built))
    if values is None:
        values = np.random.default_rng(0).exponential(size=(concepts, layout.head_count))
    return HRV(values.astype(np.float32), tuple(f"Concept {number}" for number in range(concepts)), layout)


def count(image: np.ndarray, color: tuple[int, ...]) -> int:
    return int((image == np.array(color, dtype=np.uint8)).all(axis=-1).sum())


@pytest.mark.parametrize(
    ("concepts", "layers", "heads"),
    [(1, 16, 8), (7, 16, 8), (8, 16, 8), (34, 70, 20), (34, 16, 8), (1, 1, 1)],
)
def test_heat_maps_are_neither_tiny_nor_gigantic(concepts: int, layers: int, heads: int) -> None:
    image = heat_map(hrv(concepts, layers, heads), title="Head Relevance Vectors")
    assert image.mode == "RGB"
    assert 400 <= image.width <= 1800
    assert 150 <= image.height <= 1800


def test_average_heads_have_the_neutral_color_and_extremes_the_ends_of_the_ramp() -> None:
    made = hrv(1, 3, 4)
    neutral = count(np.asarray(heat_map(hrv(1, 3, 4, np.ones((1, 10))))), NEUTRAL)
    assert neutral >= 10 * 20 * 20
    values = np.ones((1, made.layout.head_count))
    values[0, :2] = 0, 1000
    extremes = np.asarray(heat_map(hrv(1, 3, 4, values)))
    # Of ten equal cells eight stay neutral, one turns lowest, one highest; the legend shows both ends too.
    cell = neutral // 10
    assert cell <= count(extremes, LOWEST) < 1.2 * cell
    assert cell <= count(extremes, HIGHEST) < 1.2 * cell
    assert 7.5 * cell < count(extremes, NEUTRAL) < 8.5 * cell


def test_cells_stand_in_the_order_of_the_head_positions() -> None:
    lowest_places = []
    made = hrv(1, 3, 4)
    for position in range(made.layout.head_count):
        values = np.ones((1, made.layout.head_count))
        values[0, position] = 0
        image = np.asarray(heat_map(hrv(1, 3, 4, values)))
        rows, columns = np.nonzero((image == np.array(LOWEST, dtype=np.uint8)).all(axis=-1))
        lowest_places.append((int(np.median(rows)), int(np.median(columns))))
    # Two heads in the first layer, four in the others: reading order, row by row.
    assert lowest_places == sorted(lowest_places)
    assert len({row for row, _ in lowest_places}) == 3
    assert lowest_places[0][1] == lowest_places[2][1] == lowest_places[6][1]


def test_absent_heads_stay_paper() -> None:
    image = np.asarray(heat_map(hrv(1, 3, 8, np.zeros((1, 20)))))
    rows, columns = np.nonzero((image == np.array(LOWEST, dtype=np.uint8)).all(axis=-1))
    first, second = (columns[rows == row] for row in (rows.min(), rows.min() + 40))
    # The first layer has half the heads of the next, begins with it, and leaves the rest of its row empty.
    assert first.min() == second.min()
    assert len(first) == len(second) // 2
    assert tuple(image[int(rows.min()), int(second.max())]) == PAPER


def test_only_the_asked_concepts_are_drawn_and_unknown_ones_are_an_error() -> None:
    made = hrv(8, 16, 8)
    two = heat_map(made, ["concept 3", "Concept 1"])
    assert two.width < heat_map(made).width
    with pytest.raises(HRVError, match="no concept 'Colour'"):
        heat_map(made, ["Colour"])
    with pytest.raises(HRVError, match="at least one concept"):
        heat_map(made, [])


def test_color_ramp_falls_in_lightness_on_both_sides_of_its_middle() -> None:
    lightness = RAMP.astype(float) @ [0.2126, 0.7152, 0.0722]
    middle = len(RAMP) // 2
    assert (np.diff(lightness[: middle + 1]) > 0).all()
    assert (np.diff(lightness[middle:]) < 0).all()


def plain(color: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.full((height, width, 3), color, dtype=np.uint8)


def test_pictures_of_a_grid_stand_in_rows_and_columns() -> None:
    shades = [[60, 70, 80], [90, 100, 110]]
    image = np.asarray(
        picture_grid([[plain(shade) for shade in row] for row in shades], ["off", "on"], ["1", "2", "3"], "T", "C")
    )
    centres = {}
    for shade in (shade for row in shades for shade in row):
        rows, columns = np.nonzero((image == shade).all(axis=-1))
        # Enlarged four times; the antialiased letters may have a few pixels of the same grey.
        assert 128 * 128 <= len(rows) < 128 * 128 + 200
        centres[shade] = int(np.median(rows)), int(np.median(columns))
    assert centres[60][0] == centres[70][0] == centres[80][0] < centres[90][0]
    assert centres[60][1] == centres[90][1] < centres[70][1] == centres[100][1] < centres[80][1]


def test_large_pictures_are_reduced_and_keep_their_proportions() -> None:
    wide = picture_grid([[plain(0, 512, 1024)]], ["r"], ["c"])
    tall = picture_grid([[plain(0, 1024, 512)]], ["r"], ["c"])
    assert abs((tall.height - wide.height) - (wide.width - tall.width)) <= 1
    assert count(np.asarray(wide), (0, 0, 0)) == 160 * 320


def test_enlarged_pixels_stay_sharp() -> None:
    checkered = (np.indices((32, 32)).sum(axis=0) % 2 * 200).astype(np.uint8)[..., None].repeat(3, axis=2)
    image = np.asarray(picture_grid([[checkered]], ["r"], ["c"]))
    assert abs(count(image, (200, 200, 200)) - 128 * 128 // 2) < 100


@pytest.mark.parametrize(
    ("images", "rows", "columns", "message"),
    [
        ([], [], [], "at least one row"),
        ([[]], ["r"], [], "at least one row and one column"),
        ([[plain(0)]], ["a", "b"], ["c"], "2 row and 1 column labels"),
        ([[plain(0)], [plain(0), plain(0)]], ["a", "b"], ["c"], r"\[1, 2\] pictures"),
        ([[plain(0).astype(np.float32)]], ["r"], ["c"], r"not float32 \[32, 32, 3\]"),
        ([[plain(0)[..., 0]]], ["r"], ["c"], r"uint8 \[32, 32\]"),
        ([[plain(0, 0, 4)]], ["r"], ["c"], r"\[0, 4, 3\]"),
    ],
)
def test_grids_that_do_not_fit_are_refused(
    images: list[list[np.ndarray]], rows: list[str], columns: list[str], message: str
) -> None:
    with pytest.raises(HRVError, match=message):
        picture_grid(images, rows, columns)


def test_a_few_large_elements_stretch_the_scale_instead_of_all_looking_alike() -> None:
    # As in causal HRVs: most heads next to nothing, a tenth of them far above.
    values = np.full((1, 10), 0.1)
    values[0, :3] = 12, 24, 48
    image = np.asarray(heat_map(hrv(1, 3, 4, values)))
    cells = image.reshape(-1, 3)
    shown = {tuple(map(int, color)) for color in np.unique(cells, axis=0) if count(image, tuple(color)) > 400}
    assert len(shown - {PAPER}) == 4


@pytest.mark.parametrize(
    ("highest", "said"), [(3.0, ""), (15.9, ""), (20.0, ""), (45.51, "; highest 45.5"), (200.0, "; highest 200")]
)
def test_the_legend_names_what_lies_beyond_a_scale_that_ends_high(highest: float, said: str) -> None:
    values = np.ones((1, 1000), dtype=np.float32)
    values[0, :11] = min(highest, 18.0)
    values[0, 0] = highest
    assert _beyond(values, _octaves(values)) == said
