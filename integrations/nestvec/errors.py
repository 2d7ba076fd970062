"""Every error that nestvec raises on purpose.

NestvecError
├── ConfigError         a URL or an option that no engine understands (also ValueError)
├── NestingError        fields or vectors that cannot be right        (also ValueError)
├── FunnelError         a plan that cannot be run                     (also ValueError)
├── FilterError         a filter that has no meaning                  (also ValueError)
├── RecordError         a document that cannot be stored              (also ValueError)
├── EmbedderError       no embedder, or one that gave something unusable
├── AdaptorError        a map that cannot be fitted, read or used     (also ValueError)
├── CollectionMismatch  the engine holds another nesting or model
├── CollectionDamaged   what the engine holds of the collection cannot be read
├── CollectionMissing   no such collection                            (also LookupError)
├── MissingExtra        an optional package is not installed          (also ImportError)
└── BackendError        the engine refused; __cause__ is its error
    └── Unavailable     the engine could not be reached               (also ConnectionError)

Messages are lower case and say what was wrong, where, what was expected and what to do.
They never carry a vector or a secret.

IndexWarning (a UserWarning) is no error: what was added is stored, but an index of it is lacking.
"""

__all__ = [
    "AdaptorError",
    "BackendError",
    "CollectionDamaged",
    "CollectionMismatch",
    "CollectionMissing",
    "ConfigError",
    "EmbedderError",
    "FilterError",
    "FunnelError",
    "IndexWarning",
    "MissingExtra",
    "NestingError",
    "NestvecError",
    "RecordError",
    "Unavailable",
]


class NestvecError(Exception):
    """Any error that nestvec raises on purpose."""

    #: Where an add failed part way: the ids that it had stored before, in order.
    stored: tuple[str, ...] = ()


class ConfigError(NestvecError, ValueError):
    """A URL or an option that no engine understands."""


class NestingError(NestvecError, ValueError):
    """Fields or vectors that cannot be right."""


class FunnelError(NestvecError, ValueError):
    """A plan that cannot be run."""


class FilterError(NestvecError, ValueError):
    """A filter that has no meaning."""


class RecordError(NestvecError, ValueError):
    """A document that cannot be stored."""


class EmbedderError(NestvecError):
    """No embedder where one is needed, or one that gave something unusable."""


class AdaptorError(NestvecError, ValueError):
    """An adaptor that cannot be fitted on what was given, read from a file, or used here."""


class CollectionMismatch(NestvecError):
    """The engine holds another nesting or model than the one asked for."""


class CollectionDamaged(NestvecError):
    """What the engine holds of the collection cannot be read."""


class CollectionMissing(NestvecError, LookupError):
    """No such collection."""


class MissingExtra(NestvecError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed; run: pip install 'nestvec[{extra}]'", name=package
        )


class BackendError(NestvecError):
    """The engine refused; `__cause__` is its own error."""


class Unavailable(BackendError, ConnectionError):
    """The engine could not be reached."""


class IndexWarning(UserWarning):
    """What was added is stored, but an index of it could not be built; `Info.warnings` has it."""
