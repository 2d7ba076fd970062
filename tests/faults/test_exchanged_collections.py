"""Collections that others change, exchange or make anew while a store has them open."""

from __future__ import annotations

from nestvec.backends.base import Head
from nestvec.nesting import Nesting

NESTING = Nesting.of((2, 4), 8)


def test_a_collection_keeps_its_id_and_older_ones_have_none() -> None:
    for head in (Head(NESTING, "static", id="5eed"), Head(NESTING, "static")):
        assert Head.from_json(head.to_json(), "here") == head
    assert '"id"' not in Head(NESTING).to_json()
