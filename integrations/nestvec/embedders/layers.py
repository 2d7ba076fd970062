"""Fewer layers of an encoder (2D Matryoshka), found by its structure rather than by its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import EmbedderError

__all__ = ["keep_layers"]

#: What configurations call the number of layers.
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers")


def keep_layers(model: Any, layers: int, name: str) -> None:
    """Cut a SentenceTransformer's encoder after its first layers, in place.

    The stack of layers is the only list of modules that is not inside of another, holds most of
    the encoder beside its embeddings, and is as long as the configuration says. Then the hidden
    states of a sentence must be those of the whole encoder up to there: so it is a plain stack,
    and nothing of the rest is left. Where it is not EmbedderError is raised, the model unchanged.
    """
    encoder = getattr(model, "transformers_model", None)
    if encoder is None:
        raise EmbedderError(f"{name} has no transformer, so layers={layers} means nothing")
    parent, attribute, stack = _stack(encoder, name)
    if layers > len(stack):
        raise EmbedderError(f"layers={layers}, but {name} has {len(stack)} layers")
    before = _states(model, encoder, name)
    counts = _set_counts(encoder.config, len(stack), layers)
    setattr(parent, attribute, stack[:layers])
    try:
        after = _states(model, encoder, name)
        if (
            len(before) != len(stack) + 1
            or len(after) != layers + 1
            or not all(_same(b, a) for b, a in zip(before[:layers], after[:layers], strict=True))
        ):
            raise _not_understood(name, "its layers are no plain stack")
    except EmbedderError:
        setattr(parent, attribute, stack)
        for key, value in counts.items():
            setattr(encoder.config, key, value)
        raise


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


def _states(model: Any, encoder: Any, name: str) -> Any:
    """Return the hidden states of a sentence: before the first layer, and after each."""
    features = model.preprocess(["How many layers does it take?"])
    inputs = {
        key: value.to(encoder.device)
        for key, value in features.items()
        if key in {"input_ids", "attention_mask"}
    }
    with _evaluating(encoder):
        states = encoder(**inputs, output_hidden_states=True).hidden_states
    if states is None:
        raise _not_understood(name, "it does not tell what leaves each layer")
    return [state.detach() for state in states]


@contextmanager
def _evaluating(encoder: Any) -> Iterator[None]:
    training = encoder.training
    encoder.eval()
    try:
        yield
    finally:
        encoder.train(training)


def _same(one: Any, other: Any) -> bool:
    return bool(((one.float() - other.float()).abs() <= 1e-3 + 1e-3 * one.float().abs()).all())


def _not_understood(name: str, why: str) -> EmbedderError:
    return EmbedderError(
        f"cannot keep fewer layers of {name}: {why}. encoders of one stack, such as BERT, "
        "ModernBERT, MPNet, XLM-R, Nomic and Qwen3, can be cut"
    )
