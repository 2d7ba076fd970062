"""Two-stage retrieval on nested (Matryoshka) vectors, in the vector engine you already run."""

from .errors import (
    BackendError,
    CollectionDamaged,
    CollectionMismatch,
    CollectionMissing,
    ConfigError,
    EmbedderError,
    FilterError,
    FunnelError,
    MissingExtra,
    NestingError,
    NestvecError,
    RecordError,
    Unavailable,
)
from .filters import And, Eq, F, Filter, Ge, Gt, In, Le, Lt, Ne, Not, NotIn, Or
from .funnel import Funnel, Stage
from .nesting import Field, Nesting, nest
from .records import FieldInfo, Hit, Info, Record, StageTrace, Trace
from .store import AsyncStore, Store, aconnect, connect

__version__ = "0.1.0"

__all__ = [
    "And",
    "AsyncStore",
    "BackendError",
    "CollectionDamaged",
    "CollectionMismatch",
    "CollectionMissing",
    "ConfigError",
    "EmbedderError",
    "Eq",
    "F",
    "Field",
    "FieldInfo",
    "Filter",
    "FilterError",
    "Funnel",
    "FunnelError",
    "Ge",
    "Gt",
    "Hit",
    "In",
    "Info",
    "Le",
    "Lt",
    "MissingExtra",
    "Ne",
    "Nesting",
    "NestingError",
    "NestvecError",
    "Not",
    "NotIn",
    "Or",
    "Record",
    "RecordError",
    "Stage",
    "StageTrace",
    "Store",
    "Trace",
    "Unavailable",
    "aconnect",
    "connect",
    "nest",
]
