"""Every engine, sync and async, for the faults that are the same on all: as in conformance."""

from ..conformance.conftest import colour, engine, engine_name, store

__all__ = ["colour", "engine", "engine_name", "store"]
