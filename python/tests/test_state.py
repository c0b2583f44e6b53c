"""Where a loader stands: saved, and gone on from."""

from __future__ import annotations

import collections
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import SHAPES, invert, plain

import diver
from diver.errors import OptionError, StateError


def loading(**options: Any) -> diver.DataLoader:
    return diver.DataLoader(
        SHAPES, **{"batch_size": 16, "shuffle": True, "seed": 7, "format": "numpy", **options}
    )


def test_a_state_is_plain_json() -> None:
    with loading(seed=2**64 - 1, drop_last=True) as loader:
        state = loader.state_dict()
        assert state == {
            "version": 2, "epoch": 0, "seen": 0, "places": 100, "samples": 100, "shuffle": True, "seed": 2**64 - 1,
        }  # fmt: skip
        assert type(state) is dict and json.loads(json.dumps(state)) == state
        loader.load_state_dict(json.loads(json.dumps(state)))
        state["epoch"] = 99
        assert loader.state_dict()["epoch"] == 0, "it is a copy"


@pytest.mark.parametrize("consumed", range(8))
def test_a_resumed_loader_gives_exactly_the_rest(consumed: int) -> None:
    options: dict[str, Any] = {"refiner": invert, "mix": diver.mix.linear(0.2, 0.9, epochs=3)}
    with loading(**options) as loader:
        assert len(loader) == 7
        whole = [plain(batch) for _ in range(3) for batch in loader]
    with loading(**options) as loader:
        batches = iter(loader)
        for _ in range(consumed):
            next(batches)
        state = loader.state_dict()
    assert (state["epoch"], state["seen"]) == (consumed // 7, 16 * (consumed % 7))
    with loading(threads=5, prefetch=9, **options) as resumed:
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        rest = [plain(batch) for batch in resumed]
        assert len(rest) == 7 - consumed % 7
        rest += [plain(batch) for batch in resumed]
    assert rest == whole[consumed : consumed + len(rest)]


def test_a_state_taken_in_a_loop_stands_after_the_batch_in_hand() -> None:
    with loading() as loader:
        for number, _ in enumerate(loader, start=1):
            state = loader.state_dict()
            assert (state["epoch"], state["seen"]) == ((0, 16 * number) if number < 7 else (1, 0))


def test_a_rank_of_a_set_is_resumed() -> None:
    options = {"rank": 1, "world_size": 3, "uneven": "partial", "batch_size": 8}
    with loading(**options) as loader:
        whole = [plain(batch) for batch in loader]
        loader.set_epoch(0)
        next(iter(loader))
        state = loader.state_dict()
    with loading(**options) as resumed:
        resumed.load_state_dict(state)
        assert [plain(batch) for batch in resumed] == whole[1:]


def test_the_state_of_one_rank_is_loaded_on_all() -> None:
    """Rank 0 saves and every rank loads, as scripts for several devices do."""
    # 100 samples of 3 ranks: 34, 33 and 33, the last of which have one batch less.
    options = {"world_size": 3, "uneven": "partial", "batch_size": 11}
    for taken in (2, 3):
        with loading(rank=0, **options) as first:
            batches = iter(first)
            for _ in range(taken):
                next(batches)
            state = first.state_dict()
        assert (state["epoch"], state["seen"]) == (0, 33 * taken)
        for rank in (1, 2):
            with loading(rank=rank, **options) as other:
                whole = [plain(batch) for _ in range(2) for batch in other]
                other.load_state_dict(state)
                expected = whole[taken:3] if taken < 3 else whole[3:]
                assert [plain(batch) for batch in other] == expected


def test_an_epoch_goes_on_with_other_ranks_and_batches() -> None:
    """What has come of the epoch does not come again, and nothing of it is lost."""
    seen: list[int] = []
    for rank in range(2):
        with loading(rank=rank, world_size=2, batch_size=11) as first:
            batches = iter(first)
            seen += [index for _ in range(2) for index in next(batches).indices.tolist()]
            state = first.state_dict()
    assert (state["seen"], state["places"]) == (44, 100)
    with loading(batch_size=9) as alone:
        alone.load_state_dict(state)
        assert len(alone) == 7
        seen += [index for batch in alone for index in batch.indices.tolist()]
        assert len(alone) == 12, "the next epoch is whole"
    assert sorted(seen) == list(range(100))


def test_a_state_loaded_while_a_loop_is_under_way_takes_effect() -> None:
    with loading() as loader:
        whole = [plain(batch) for batch in loader]
        loader.set_epoch(0)
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        next(batches)
        next(batches)
        loader.load_state_dict(state)
        assert [plain(batch) for batch in loader] == whole[1:]


def test_set_epoch_of_the_loaded_epoch_stays_in_its_middle() -> None:
    """`for epoch in range(start, ...): loader.set_epoch(epoch)`, as scripts for torch's samplers have it."""
    with loading() as loader:
        epochs = [[plain(batch) for batch in loader] for _ in range(3)]
        loader.set_epoch(1)
        batches = iter(loader)
        next(batches)
        next(batches)
        state = loader.state_dict()
    with loading() as resumed:
        resumed.load_state_dict(state)
        for epoch in (state["epoch"], state["epoch"] + 1):
            resumed.set_epoch(epoch)
            assert [plain(batch) for batch in resumed] == epochs[epoch][2 if epoch == 1 else 0 :]
        resumed.load_state_dict(state)
        resumed.set_epoch(0)
        assert [plain(batch) for batch in resumed] == epochs[0], "another epoch begins at its start"
        resumed.set_epoch(1)
        assert [plain(batch) for batch in resumed] == epochs[1], "the state is used up"


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 4},
        {"prefetch": 1},
        {"format": "torch"},
        {"image_size": 16},
        {"refiner": invert, "mix": 0.5},
    ],
    ids=str,
)
def test_what_does_not_touch_the_order_may_change(changes: dict[str, Any]) -> None:
    with loading() as loader:
        next(iter(loader))
        state = loader.state_dict()
        expected = [batch.indices.tolist() for batch in list(loader)]
        loader.load_state_dict(state)
        expected = [batch.indices.tolist() for batch in loader]
    with loading(**changes) as resumed:
        resumed.load_state_dict(state)
        assert [batch.indices.tolist() for batch in resumed] == expected


def test_the_rest_of_an_epoch_may_leave_out_its_last_batch() -> None:
    with loading() as loader, loading(drop_last=True) as resumed:
        batches = iter(loader)
        next(batches)
        resumed.load_state_dict(loader.state_dict())
        rest = [batch.indices.tolist() for batch in batches]
        assert [len(indices) for indices in rest] == [16] * 5 + [4]
        assert [batch.indices.tolist() for batch in resumed] == rest[:-1]


def test_a_checkpoint_of_torch_keeps_it(tmp_path: Path) -> None:
    with loading() as loader:
        next(iter(loader))
        state = loader.state_dict()
        torch.save({"loader": state, "step": 3}, tmp_path / "checkpoint.pt")
        restored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["loader"]
        assert restored == state
        loader.load_state_dict(restored)
        loader.load_state_dict(collections.OrderedDict(copy.deepcopy(restored)))


MISSING = object()
NO_COUNTS: list[Any] = [-1, 1.0, 1.5, "1", None, True, [1], {}, MISSING]
BAD_FIELDS: list[tuple[str, Any]] = [
    ("seed", 8),
    ("samples", 99),
    ("places", 99),
    ("shuffle", False),
    ("version", 1),
    ("version", 3),
    ("seen", 101),
    ("seen", 2**63),
    ("seen", 2**64),
    ("epoch", 2**64 - 1),
    ("epoch", 2**64),
    ("epoch", 2**100),
    *((name, value) for name in ("epoch", "seen", "places", "seed") for value in NO_COUNTS),
    *(("shuffle", value) for value in (1, "True", None, MISSING)),
    ("epoch", float("nan")),
    ("epoch", float("inf")),
    ("epoch", np.float64(1)),
    ("epoch", torch.tensor(1)),
    ("epoch", object()),
    ("version", MISSING),
    ("samples", MISSING),
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"), BAD_FIELDS, ids=[f"{field}={str(value)[:8]}" for field, value in BAD_FIELDS]
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(field: str, value: Any) -> None:
    with loading() as loader:
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        bad = {**state, field: value}
        if value is MISSING:
            del bad[field]
        with pytest.raises(StateError, match="state") as caught:
            loader.load_state_dict(bad)
        assert isinstance(caught.value, ValueError)
        assert loader.state_dict() == state
        assert len(list(batches)) == 6, "the loop under way goes on"


@pytest.mark.parametrize(
    "state",
    [{}, None, 5, "state", b"{}", [], [("epoch", 1)], {"loader": {}}, {1: 2}, {"epoch": {1, 2}}, {("a",): 1}],
    ids=repr,
)
def test_what_is_no_state_is_refused(state: Any) -> None:
    with loading() as loader, pytest.raises(StateError, match="state"):
        loader.load_state_dict(state)


def test_the_differing_field_is_named_with_both_values() -> None:
    with loading() as loader, loading(seed=8) as other, loading(shuffle=False) as third:
        with pytest.raises(StateError, match="`seed` is 7 in the state, 8 in this loader"):
            other.load_state_dict(loader.state_dict())
        with pytest.raises(StateError, match="`shuffle` is true in the state, false in this loader"):
            third.load_state_dict(loader.state_dict())


def test_the_last_epoch_can_be_saved_and_left() -> None:
    last = 2**63 - 1
    with loading() as loader:
        loader.set_epoch(last)
        next(iter(loader))
        state = loader.state_dict()
        assert state["epoch"] == last
        loader.load_state_dict(state)
        assert len(list(loader)) == 6
        with pytest.raises(OptionError, match="epoch"):
            loader.set_epoch(last + 1)
