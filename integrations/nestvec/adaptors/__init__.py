"""Adaptors: fitted maps of full vectors whose prefixes say more, for documents and queries alike.

`RotationAdaptor` needs numpy alone and leaves full cosines as they were. `MatryoshkaAdaptor` is
trained with torch, and needs numpy alone once it is.
"""

from .base import Adaptor
from .files import load
from .matryoshka import MatryoshkaAdaptor
from .recall import Figures, recall_by_prefix
from .rotation import RotationAdaptor
from .training import Training

__all__ = [
    "Adaptor",
    "Figures",
    "MatryoshkaAdaptor",
    "RotationAdaptor",
    "Training",
    "load",
    "recall_by_prefix",
]
