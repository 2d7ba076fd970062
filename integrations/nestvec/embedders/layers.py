"""Fewer layers of an encoder (2D Matryoshka), found by its structure rather than by its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

from ..errors import EmbedderError

__all__ = ["keep_layers"]

#: What configurations call the number of layers.
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers")


def keep_layers(model: Any, layers: int, name: str) -> None:
    """Cut a SentenceTransformer's encoder after its first layers, in place.

    The stack of layers is the only list of modules that is not inside of another, holds most of
    the encoder beside its embeddings, and is as long as the configuration says. Running it shows
    that it is a plain stack: each layer is called once, in order, with what left the one before
    it; and the layers that are kept do after the cut what they did before. Where it is not so,
    EmbedderError is raised and the model is as it was.
    """
    encoder = getattr(model, "transformers_model", None)
    if encoder is None:
        raise EmbedderError(f"{name} has no transformer, so layers={layers} means nothing")
    parent, attribute, stack = _stack(encoder, name)
    if layers > len(stack):
        raise EmbedderError(f"layers={layers}, but {name} has {len(stack)} layers")
    before = _passed(model, encoder, stack)
    if len(before) != len(stack) or not all(
        _same(left, entered) for (_, left), (entered, _) in pairwise(before)
    ):
        raise _not_understood(name, "its layers are no plain stack")
    counts = _set_counts(encoder.config, len(stack), layers)
    setattr(parent, attribute, stack[:layers])
    after = _passed(model, encoder, stack[:layers])
    if len(after) != layers or not all(
        _same(one, other) for (_, one), (_, other) in zip(before[:layers], after, strict=True)
    ):
        setattr(parent, attribute, stack)
        for key, value in counts.items():
            setattr(encoder.config, key, value)
        raise _not_understood(name, "without its last layers the others do something else")


def _stack(encoder: Any, name: str) -> tuple[Any, str, Any]:
    """Return the stack of layers, and the module and attribute that hold it."""
    found = [
        (parent, attribute, child)
        for parent, attribute, child in _outermost_lists(encoder)
        if len({type(layer) for layer in child}) == 1
        and any(len(child) == getattr(encoder.config, key, None) for key in _COUNTS)
    ]
    if len(found) != 1:
        raise _not_understood(name, f"it has {len(found)} stacks of layers")
    parent, attribute, stack = found[0]
    inner = _parameters(encoder) - _embeddings(encoder)
    if _parameters(stack) < inner / 2:
        raise _not_understood(name, "most of it is outside of its stack of layers")
    return parent, attribute, stack


def _outermost_lists(module: Any) -> Iterator[tuple[Any, str, Any]]:
    for attribute, child in module.named_children():
        if any(kind.__name__ == "ModuleList" for kind in type(child).__mro__):
            yield module, attribute, child
        else:
            yield from _outermost_lists(child)


def _parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _embeddings(module: Any) -> int:
    return sum(_parameters(m) for m in module.modules() if type(m).__name__.endswith("Embedding"))


def _set_counts(config: Any, whole: int, layers: int) -> dict[str, Any]:
    """Make a configuration tell of fewer layers; return what it told before."""
    before: dict[str, Any] = {}
    for key in _COUNTS:
        if getattr(config, key, None) == whole:
            before[key] = whole
            setattr(config, key, layers)
    kinds = getattr(config, "layer_types", None)
    if isinstance(kinds, list) and len(kinds) == whole:
        before["layer_types"] = kinds
        config.layer_types = kinds[:layers]
    return before


def _passed(model: Any, encoder: Any, stack: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return what entered and what left each layer for a sentence, in the order of the calls.

    A list that is shorter than the stack, or empty, where it is not called as layers are.
    """
    seen: list[tuple[int, Any, Any]] = []

    def hook(n: int) -> Any:
        def keep(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], left: Any) -> None:
            entered = args[0] if args else kwargs.get("hidden_states")
            seen.append((n, entered, left[0] if isinstance(left, tuple) else left))

        return keep

    training = encoder.training
    with ExitStack() as after:
        after.callback(encoder.train, training)
        encoder.eval()
        for n, layer in enumerate(stack):
            after.callback(layer.register_forward_hook(hook(n), with_kwargs=True).remove)
        model.encode(["How many layers does it take?"], show_progress_bar=False)
    if [n for n, _, _ in seen] != list(range(len(stack))):
        return []
    return [(entered, left) for _, entered, left in seen]


def _same(one: Any, other: Any) -> bool:
    if getattr(one, "shape", None) is None or one.shape != getattr(other, "shape", None):
        return False
    return bool(((one.float() - other.float()).abs() <= 1e-3 + 1e-3 * one.float().abs()).all())


def _not_understood(name: str, why: str) -> EmbedderError:
    return EmbedderError(
        f"cannot keep fewer layers of {name}: {why}. encoders of one stack, such as BERT, "
        "ModernBERT, MPNet, XLM-R, Nomic and Qwen3, can be cut"
    )
