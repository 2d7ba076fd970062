"""What is stored is reported as stored, whatever fails after it: an index, or settling."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from nestvec import BackendError, IndexWarning
from nestvec.unbuilt import Unbuilt

from ..vectors import nested_vectors, records

ROWS = nested_vectors(20, 8)


@pytest.fixture
def unsettled(store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store whose engine cannot settle what it has stored."""

    def settle() -> Iterator[Any]:
        raise BackendError("not enough space for optimisation")
        yield

    monkeypatch.setattr(backend(store), "settle", settle)
    return store


def backend(store: Any) -> Any:
    return store._collection.backend


def test_what_could_not_be_settled_is_stored_and_warned_of_once(unsettled: Any) -> None:
    with pytest.warns(IndexWarning, match="not enough space .* run store.create_index") as caught:
        ids = unsettled.add_records(records(ROWS))
    assert ids == [str(n) for n in range(20)]
    assert len(caught) == 1
    assert unsettled.add_records(records(ROWS, prefix="again-"))  # a second warning would raise
    assert unsettled.count() == 40
    (said,) = unsettled.info().warnings
    assert said == str(caught[0].message)
    assert said in unsettled.explain(ROWS[0]).warnings


def test_where_warnings_are_errors_it_is_only_recorded(unsettled: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(unsettled.add_records(records(ROWS))) == 20
    (said,) = unsettled.info().warnings
    assert "not enough space" in said


def test_a_store_without_faults_has_no_warnings(store: Any) -> None:
    store.add_records(records(ROWS))
    assert store.info().warnings == ()
    assert store.explain(ROWS[0]).warnings == ()


def test_a_build_that_failed_is_tried_again_later_and_forgotten_when_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    unbuilt = Unbuilt()
    assert unbuilt.is_due("ann")
    with pytest.warns(IndexWarning) as caught:
        unbuilt.failed("ann", "no room", "store.create_index()")
    assert caught[0].filename == __file__
    assert not unbuilt.is_due("ann")
    now += 61
    assert unbuilt.is_due("ann")
    unbuilt.failed("ann", "no room", "store.create_index()", took=30)  # warned of already
    now += 599
    assert not unbuilt.is_due("ann")
    assert len(unbuilt.texts) == 1
    unbuilt.built("ann")
    assert not unbuilt.texts
    assert unbuilt.is_due("ann")
