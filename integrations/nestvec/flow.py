"""Flows: logic that yields requests and is sent responses, and the two ways to drive it.

Everything that decides is a generator and performs nothing; a test drives it with `next()` and
`.send()`. A driver is a function that performs one request: `send` blocks, `asend` is awaited.
An error of the driver is thrown into the flow at the `yield`, where the flow may handle it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Call", "Flow", "arun", "run"]

T = TypeVar("T")

#: A generator of requests that ends with a T.
Flow = Generator[Any, Any, T]


@dataclass(frozen=True, slots=True)
class Call:
    """A request to call a method of the driver: its name and its arguments."""

    method: str
    args: tuple[Any, ...] = ()


def run(flow: Flow[T], send: Callable[[Any], Any]) -> T:
    """Drive a flow to its end with a function that performs one request."""
    try:
        request = next(flow)
        while True:
            try:
                response = send(request)
            except BaseException as error:  # noqa: BLE001  (passed on to the flow)
                request = flow.throw(error)
            else:
                request = flow.send(response)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def arun(flow: Flow[T], asend: Callable[[Any], Awaitable[Any]]) -> T:
    """Drive a flow to its end with a coroutine function that performs one request."""
    try:
        request = next(flow)
        while True:
            try:
                response = await asend(request)
            except BaseException as error:  # noqa: BLE001  (passed on to the flow)
                request = flow.throw(error)
            else:
                request = flow.send(response)
    except StopIteration as stop:
        result: T = stop.value
        return result
