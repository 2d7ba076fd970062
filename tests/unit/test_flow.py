"""Flows are driven the same way in both colours."""

import asyncio
from typing import Any

import pytest

from nestvec.flow import Call, Flow, arun, run


def double_then_add(n: int) -> Flow[int]:
    doubled: int = yield Call("double", (n,))
    added: int = yield Call("add", (doubled, 1))
    return added


def recovers() -> Flow[str]:
    try:
        yield Call("fail")
    except ZeroDivisionError:
        return (yield Call("rescue"))  # type: ignore[no-any-return]
    return "not reached"


def send(request: Call) -> Any:
    if request.method == "fail":
        raise ZeroDivisionError
    if request.method == "double":
        return 2 * request.args[0]
    return sum(request.args) if request.method == "add" else "saved"


async def asend(request: Call) -> Any:
    await asyncio.sleep(0)
    return send(request)


def test_a_flow_needs_no_driver_to_be_tested() -> None:
    flow = double_then_add(4)
    assert next(flow) == Call("double", (4,))
    assert flow.send(8) == Call("add", (8, 1))
    with pytest.raises(StopIteration) as end:
        flow.send(9)
    assert end.value.value == 9


def test_both_colours_give_the_same() -> None:
    assert run(double_then_add(4), send) == asyncio.run(arun(double_then_add(4), asend)) == 9


def test_an_error_of_the_driver_is_raised_where_the_flow_waits() -> None:
    assert run(recovers(), send) == asyncio.run(arun(recovers(), asend)) == "saved"


def unprepared() -> Flow[None]:
    yield Call("fail")


def test_an_error_that_the_flow_does_not_handle_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        run(unprepared(), send)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(arun(unprepared(), asend))


def test_a_flow_that_asks_for_nothing() -> None:
    def silent() -> Flow[int]:
        return 3
        yield

    assert run(silent(), send) == asyncio.run(arun(silent(), asend)) == 3
