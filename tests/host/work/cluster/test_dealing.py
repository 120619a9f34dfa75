"""Which worker makes which piece: every piece counts once, whoever dies, hangs or comes late."""

from __future__ import annotations

from hrv_pack.host.work.cluster.dealing import AHEAD, TRIES, Dealing
from hypothesis import given
from hypothesis import strategies as st

STEPS = 10


def test_pieces_are_dealt_in_order_to_whoever_is_free() -> None:
    dealing = Dealing(3)
    assert [dealing.deal(name, 2, 0.0) for name in "ab"] == [0, 1]
    assert dealing.finish("b", STEPS, 1.0) == 1
    assert dealing.deal("b", 2, 1.0) == 2
    assert dealing.finish("a", STEPS, 2.0) == 0 and dealing.deal("a", 2, 2.0) is None
    assert dealing.finish("b", STEPS, 2.0) == 2 and dealing.is_over


def test_what_a_lost_worker_had_comes_next() -> None:
    dealing = Dealing(5)
    for name in "abc":
        dealing.deal(name, 3, 0.0)
    assert dealing.lose("b") is None
    assert dealing.deal("c2", 3, 0.0) == 1
    assert dealing.lose("idle") is None


def test_a_piece_over_which_too_many_workers_are_lost_is_told() -> None:
    dealing = Dealing(2)
    for worker in range(TRIES):
        assert dealing.deal(worker, 1, 0.0) == 0
        assert dealing.lose(worker) == (0 if worker == TRIES - 1 else None)


def test_a_piece_that_hangs_goes_to_a_second_worker_and_counts_once() -> None:
    dealing = Dealing(3)
    assert [dealing.deal(name, 2, 0.0) for name in "ab"] == [0, 1]
    assert dealing.finish("b", STEPS, 1.0) == 1 and dealing.deal("b", 2, 1.0) == 2
    assert dealing.finish("b", STEPS, 2.0) == 2
    assert dealing.deal("b", 2, 3.0) is None, "a usual piece takes a second, so three are no reason"
    assert dealing.deal("b", 2, 9.0) == 0
    assert dealing.deal("c", 3, 20.0) is None, "two are enough"
    assert dealing.finish("b", STEPS, 10.0) == 0 and dealing.is_over
    assert dealing.finish("a", STEPS, 11.0) is None


def test_nothing_is_made_far_beyond_what_is_missing() -> None:
    dealing = Dealing(10 * AHEAD)
    assert dealing.deal("slow", 2, 0.0) == 0
    made = 0
    while dealing.deal("fast", 2, 0.1) is not None:
        dealing.finish("fast", STEPS, 0.1)
        made += 1
    assert made == AHEAD - 1
    dealing.finish("slow", STEPS, 0.2)
    assert dealing.deal("fast", 2, 0.2) == AHEAD


def test_progress_goes_back_when_work_is_lost() -> None:
    dealing = Dealing(2)
    dealing.deal("a", 2, 0.0)
    dealing.deal("b", 2, 0.0)
    dealing.advance("a", 4)
    dealing.advance("b", 3)
    assert dealing.news() == 7 and dealing.news() == 0
    dealing.lose("a")
    assert dealing.news() == -4
    dealing.finish("b", STEPS, 1.0)
    assert dealing.news() == STEPS - 3


@given(
    pieces=st.integers(0, 30),
    happens=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["finish", "lose", "advance"])), max_size=200),
)
def test_whatever_happens_every_piece_counts_once(pieces: int, happens: list[tuple[int, str]]) -> None:
    dealing, counted, told, now = Dealing(pieces), [], 0, 0.0
    for worker, what in happens:
        now += 1.0
        if worker not in dealing.hands and dealing.deal(worker, 5, now) is None:
            continue
        if what == "finish":
            counted.append(dealing.finish(worker, STEPS, now))
        elif what == "lose":
            dealing.lose(worker)
        else:
            dealing.advance(worker, STEPS // 2)
        told += dealing.news()
    for left in list(dealing.hands):
        dealing.lose(left)
    while not dealing.is_over:
        now += 1.0
        assert dealing.deal("last", 1, now) is not None
        counted.append(dealing.finish("last", STEPS, now))
        told += dealing.news()
    assert sorted(piece for piece in counted if piece is not None) == list(range(pieces))
    assert told + dealing.news() == STEPS * pieces
