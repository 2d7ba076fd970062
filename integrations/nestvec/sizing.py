"""placeholder"""
from __future__ import annotations
from collections.abc import Sequence
from .nesting import Field
__all__ = ["hot_bytes"]
def hot_bytes(engine: str, fields: Sequence[Field], count: int, m: int = 16) -> int:
    """x"""
    return sum(f.nbytes*count for f in fields) + 2*m*4*count
