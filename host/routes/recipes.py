"""HRVs as the page describes them before a run: a recipe says from which nodes of the graph they come.

A recipe is a JSON object; ``from`` says what it is:

    file        name                            Load HRV
    published   name                            Published HRV
    npy         vectors, head_index             Import HRV (.npy); with a vocabulary, which is a recipe, or the paper's
    run         digest                          what a node gave in its last run
    pick        hrv, concepts                   Pick Concepts of another recipe
    clamp       hrv, limit                      HRV Clamp
    merge       hrvs                            Merge HRVs
    mean        hrvs                            HRV Mean
    vocabulary  text                            HRV Concepts: names of concepts, no HRV yet
    words       file                            Import HRV Concepts (.csv): likewise
    mini                                        Scorer: HRV-mini's Truth: the concepts that it can tell
"""

from __future__ import annotations

from collections.abc import Callable

from ...hrv.errors import HRVError
from ...hrv.relevance.arithmetic import clamp, mean, merge, pick
from ...hrv.relevance.files import load_hrv
from ...hrv.relevance.published import NAMES_LIMIT, VECTORS_LIMIT, hrv_from_npy
from ...hrv.relevance.vectors import HRV
from ...hrv.relevance.vocabulary import find_concept, fold, parse_paper_csv, parse_vocabulary
from ..files.catalog import PublishedHRV, mini_concepts, obtain, paper_concepts, read_catalog
from ..files.folders import SUFFIX, hrv_path, models_folder, read_user_file, user_file
from ..page.hrvs import given_hrv
from .requests import LARGEST, Request, list_of, number_of, object_of, text_of, texts_of

_DEEPEST = 16
_MOST_PARTS = 64

Names = tuple[str, ...]


def hrv_of(recipe: Request) -> HRV:
    """The HRV of a recipe, by what its nodes would do. Raises HRVError for one that no node would accept, and where
    nothing can be known before a run.
    """
    _check_size(recipe)
    return _hrv(recipe)


def concepts_of(recipe: Request) -> Names:
    """The names of the concepts of a recipe, known for vocabularies and for published HRVs that are not here yet too.

    Raises HRVError as :func:`hrv_of` does.
    """
    _check_size(recipe)
    return _names(recipe)


def _check_size(recipe: Request) -> None:
    parts = 0
    level = [recipe]
    for _ in range(_DEEPEST):
        parts += len(level)
        if parts > _MOST_PARTS:
            break
        level = [
            part
            for one in level
            for part in ([one["hrv"]] if "hrv" in one else list_of(one, "hrvs") if "hrvs" in one else [])
            if isinstance(part, dict)
        ]
        if not level:
            return
    raise HRVError(
        f"This HRV is made in more than {_MOST_PARTS} steps, or more than {_DEEPEST} in a row: run it first."
    )


def _hrv(recipe: Request) -> HRV:
    make = _HRVS.get(text_of(recipe, "from"))
    if make is None:
        raise HRVError("This HRV is only known after a run.")
    return make(recipe)


def _names(recipe: Request) -> Names:
    name = _NAMES.get(text_of(recipe, "from"))
    return name(recipe) if name else _hrv(recipe).concepts


def _published_entry(recipe: Request) -> PublishedHRV:
    entry = read_catalog().get(text_of(recipe, "name"))
    if entry is None:
        raise HRVError("There is no published HRV of this name.")
    return entry


def _published(recipe: Request) -> HRV:
    entry = _published_entry(recipe)
    path = models_folder() / "published" / f"{entry.name}{SUFFIX}"
    if not path.exists():
        raise HRVError(
            f"The published HRV '{entry.name}' is not on this machine yet. Turn on 'download' and run the node once."
        )
    return obtain(entry, path.parent, download=False)


def _npy(recipe: Request) -> HRV:
    vectors = read_user_file(user_file(text_of(recipe, "vectors")), VECTORS_LIMIT)
    head_index = read_user_file(user_file(text_of(recipe, "head_index")), NAMES_LIMIT)
    concepts = _names(object_of(recipe, "vocabulary")) if "vocabulary" in recipe else paper_concepts()
    return hrv_from_npy(vectors, head_index, concepts, {})


def _several(recipe: Request) -> list[HRV]:
    return [_hrv(_part(part)) for part in list_of(recipe, "hrvs")]


def _part(part: object) -> Request:
    return object_of({"hrv": part}, "hrv")


def _picked(recipe: Request) -> Names:
    there = _names(object_of(recipe, "hrv"))
    asked = texts_of(recipe, "concepts")
    return tuple(there[find_concept(name, there, "HRV")] for name in asked)


def _merged(recipe: Request) -> Names:
    names = [name for part in list_of(recipe, "hrvs") for name in _names(_part(part))]
    return tuple({fold(name): name for name in reversed(names)}[key] for key in dict.fromkeys(map(fold, names)))


def _first(recipe: Request) -> Names:
    parts = list_of(recipe, "hrvs")
    if not parts:
        raise HRVError("There is no HRV to take the mean of.")
    return _names(_part(parts[0]))


def _words(recipe: Request) -> Names:
    content = read_user_file(user_file(text_of(recipe, "file")), 4 * LARGEST)
    return parse_paper_csv(content.decode("utf-8", "replace")).names


_HRVS: dict[str, Callable[[Request], HRV]] = {
    "file": lambda recipe: load_hrv(hrv_path(text_of(recipe, "name"))),
    "published": _published,
    "npy": _npy,
    "run": lambda recipe: given_hrv(text_of(recipe, "digest")),
    "pick": lambda recipe: pick(_hrv(object_of(recipe, "hrv")), texts_of(recipe, "concepts")),
    "clamp": lambda recipe: clamp(_hrv(object_of(recipe, "hrv")), number_of(recipe, "limit")),
    "merge": lambda recipe: merge(_several(recipe)),
    "mean": lambda recipe: mean(_several(recipe)),
}

# What is known of the concepts without the values.
_NAMES: dict[str, Callable[[Request], Names]] = {
    "published": lambda recipe: _published_entry(recipe).concepts,
    "pick": _picked,
    "clamp": lambda recipe: _names(object_of(recipe, "hrv")),
    "merge": _merged,
    "mean": _first,
    "vocabulary": lambda recipe: parse_vocabulary(text_of(recipe, "text")).names,
    "words": _words,
    "mini": lambda recipe: mini_concepts(),
}
