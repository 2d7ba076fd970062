"""What filters look at and how it compares: paths into metadata, scalars, instants, text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, timezone
from functools import lru_cache
from reprlib import Repr
from typing import Any
from unicodedata import category

from .errors import FilterError, RecordError
from .records import MAX_DEPTH, plain

__all__ = [
    "Scalar", "Step", "checked_key", "checked_pattern", "checked_text", "checked_value",
    "comparable", "fold", "instant", "is_word", "matcher", "path", "pattern", "scalars", "short",
    "spelled", "values", "variants", "words",
]  # fmt: skip

#: A value that metadata is compared with; datetimes stay datetimes, to compare by instant.
Scalar = str | int | float | bool | None | datetime

#: One step of a path: the key of a dict, or None for every element of a list.
Step = str | None


# Paths


@lru_cache(maxsize=1024)
def path(key: str) -> tuple[Step, ...]:
    """Return the steps of a key: `author.name`, `tags[].name`, `"a literal.key".name`.

    Raises FilterError on what is no path.
    """
    steps: list[Step] = []
    rest = f".{key}"
    while rest:
        if not rest.startswith("."):
            raise _no_path(key)
        name, rest = (_quoted if rest.startswith('."') else _bare)(key, rest[1:])
        steps.append(name)
        while rest.startswith("[]"):
            steps.append(None)
            rest = rest[2:]
        if len(steps) > MAX_DEPTH + 1:
            raise FilterError(f"key {key[:80]!r}… has more than {MAX_DEPTH + 1} steps")
    return tuple(steps)


_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _quoted(key: str, rest: str) -> tuple[str, str]:
    found = _QUOTED.match(rest)
    try:
        name = json.loads(found[0], strict=False) if found else None
    except ValueError:
        name = None
    if found is None or not isinstance(name, str):
        raise _no_path(key)
    return name, rest[found.end() :]


def _bare(key: str, rest: str) -> tuple[str, str]:
    step, dot, after = rest.partition(".")
    name = step
    while name.endswith("[]"):
        name = name[:-2]
    if not name:
        raise _no_path(key)
    return name, step[len(name) :] + dot + after


def spelled(steps: Iterable[Step]) -> str:
    """Return the key with these steps; quotes are only where they are needed."""
    key = ""
    for step in steps:
        if step is None:
            key += "[]"
        else:
            key += f".{step}" if _is_bare(step) else f".{json.dumps(step, ensure_ascii=False)}"
    return key[1:]


def _is_bare(step: str) -> bool:
    return not (not step or "." in step or step.startswith('"') or step.endswith("[]"))


def _no_path(key: object) -> FilterError:
    return FilterError(
        "a key is a name or a path such as 'author.name' or 'tags[].name', with a step that has "
        f"dots of its own in double quotes, got {short(key)}"
    )


_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 120, 120


def short(given: object) -> str:
    """Return the repr of something as it fits an error, however deep and long it is."""
    return _SHORT.repr(given)


def checked_key(key: object) -> str:
    """Return a key that is a path. Raises FilterError."""
    if not isinstance(key, str):
        raise _no_path(key)
    for step in path(key):
        try:
            (step or "").encode()
        except UnicodeEncodeError:
            raise FilterError(f"key {short(key)} has a lone surrogate") from None
    return key


def values(metadata: Mapping[str, Any], key: str) -> Iterator[Any]:
    """Yield all that a key leads to, also None and empty lists; nothing where it is missing."""
    found: list[Any] = [metadata]
    for step in path(key):
        if step is None:
            found = [item for one in found if isinstance(one, list) for item in one]
        else:
            found = [one[step] for one in found if isinstance(one, Mapping) and step in one]
    yield from found


def scalars(metadata: Mapping[str, Any], key: str) -> Iterator[Any]:
    """Yield what a comparison with a key looks at: the scalars there, and those of lists there."""
    for found in values(metadata, key):
        for item in found if isinstance(found, list) else (found,):
            if not isinstance(item, (list, Mapping)):
                yield item


# Values


def checked_value(key: str, value: object) -> Scalar:
    """Return a value as what metadata is compared with. Raises FilterError."""
    if isinstance(value, date):
        return _moment(value)
    try:
        stored = plain(value, f"key {short(key)}")
    except RecordError as error:
        raise FilterError(str(error)) from None
    if isinstance(stored, (list, dict)):
        raise FilterError(
            f"key {short(key)}: compare with one value, not {short(value)}; in_ takes several"
        )
    return stored  # type: ignore[no-any-return]


#: The longest text to look for; a regular expression of much more is too complex for Postgres.
_MAX_TEXT = 4_000


def checked_text(key: str, given: object) -> str:
    """Return a string to look for. Raises FilterError."""
    text = _string(key, given)
    _check_length(key, len(text))
    return text


def checked_pattern(key: str, given: object) -> str:
    """Return a LIKE pattern. Raises FilterError."""
    text = _string(key, given)
    try:
        pieces = pattern(text)
    except FilterError as error:
        raise FilterError(f"key {short(key)}: {error}") from None
    _check_length(key, sum(map(len, pieces)) + max(0, len(pieces) - 3))
    return text


def _string(key: str, given: object) -> str:
    text = checked_value(key, given)
    if not isinstance(text, str):
        raise FilterError(f"key {short(key)}: text is a string, got {short(given)}")
    return text


def _check_length(key: str, length: int) -> None:
    if length > _MAX_TEXT:
        raise FilterError(
            f"key {short(key)}: a text to look for has at most {_MAX_TEXT:,} characters, got "
            f"{length:,}"
        )


def _moment(value: date) -> datetime:
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=timezone.utc)
    try:
        aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return aware.astimezone(timezone.utc)
    except OverflowError:
        raise FilterError(f"{value!r} is out of range once it is in UTC") from None


def comparable(stored: Any, value: Scalar) -> tuple[Any, Any] | None:
    """Return the pair to compare, or None where the types make the comparison false."""
    if isinstance(value, datetime):
        moment = instant(stored) if isinstance(stored, str) else None
        return None if moment is None else (moment, value)
    if isinstance(value, bool) or value is None:
        return (stored, value) if type(stored) is type(value) else None
    if isinstance(value, str):
        return (stored, value) if isinstance(stored, str) else None
    if isinstance(stored, (int, float)) and not isinstance(stored, bool):
        return stored, value
    return None


_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?)?", re.ASCII
)


def instant(text: str) -> datetime | None:
    """Return the moment that a string in ISO 8601 form names, or None; no offset means UTC."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        return None
    day, minutes, seconds, fraction, offset = match.groups()
    if fraction and not seconds:
        return None
    written = f"{day}T{minutes or '00:00'}{seconds or ':00'}"
    zone = "+00:00" if offset in (None, "Z") else offset
    try:
        moment = datetime.fromisoformat(f"{written}.{(fraction or '.')[1:]:0<6}{zone}")
        return moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


# Text


def fold(text: str) -> str:
    """Return text without case: each character's lower case, where that is one character."""
    if text.isascii():
        return text.lower()
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)


@lru_cache(maxsize=1)
def _cases() -> dict[str, str]:
    """Return the characters that fold to another one, by that one; all are in planes 0 and 1."""
    cases: dict[str, str] = {}
    for char in map(chr, range(0x20000)):
        if (folded := fold(char)) != char:
            cases[folded] = cases.get(folded, "") + char
    return cases


def variants(char: str) -> str:
    """Return the characters that are the same without case, itself among them."""
    folded = fold(char)
    return folded + _cases().get(folded, "")


#: Letters that Unicode calls symbols: the circled and squared ones.
_SYMBOL_LETTERS = re.compile("[\u24b6-\u24e9\U0001f130-\U0001f149\U0001f150-\U0001f169"
                             "\U0001f170-\U0001f189]")  # fmt: skip


def is_word(char: str) -> bool:
    """Return whether a character belongs to words: letters, marks, digits and other numbers.

    Characters that Python's Unicode tables do not know yet count as letters, since an engine with
    newer tables takes them for such.
    """
    kind = category(char)
    return kind[0] in "LMN" or kind == "Cn" or bool(_SYMBOL_LETTERS.match(char))


_ASCII_WORD = re.compile("[a-z0-9]+")


def words(text: str) -> list[str]:
    """Return the words of a text without case: runs of characters that belong to words."""
    folded = fold(text)
    if folded.isascii():
        return _ASCII_WORD.findall(folded)
    return "".join(char if is_word(char) else " " for char in folded).split()


def pattern(text: str) -> list[list[str | None]]:
    r"""Return the pieces between the `%` of a LIKE pattern: characters, and None for each `_`.

    A backslash takes the next character as it is. Raises FilterError where none follows.
    """
    pieces: list[list[str | None]] = [[]]
    chars = iter(text)
    for char in chars:
        if char == "%":
            if pieces[-1] or len(pieces) == 1:  # %% is %
                pieces.append([])
        elif char == "\\":
            following = next(chars, None)
            if following is None:
                raise FilterError(f"pattern {short(text)} ends with a backslash; write two")
            pieces[-1].append(following)
        else:
            pieces[-1].append(None if char == "_" else char)
    return pieces


@lru_cache(maxsize=256)
def matcher(text: str, ignore_case: bool) -> Callable[[str], bool]:
    """Return what tells whether a LIKE pattern matches the whole of a text.

    Piece by piece from the left, so that no pattern takes more than the length of the text times
    its own; one regular expression of it all could take forever.
    """
    pieces = pattern(text)
    regexes = [re.compile(_regex(piece, ignore_case), re.DOTALL) for piece in pieces]
    first, last, length = regexes[0], regexes[-1], len(pieces[-1])

    def matches(stored: str) -> bool:
        stored = fold(stored) if ignore_case else stored
        if len(regexes) == 1:
            return first.fullmatch(stored) is not None
        found = first.match(stored)
        for regex in regexes[1:-1]:
            found = found and regex.search(stored, found.end())
        return found is not None and bool(
            last.fullmatch(stored, max(found.end(), len(stored) - length))
        )

    return matches


def _regex(piece: list[str | None], ignore_case: bool) -> str:
    chars = (char and re.escape(fold(char) if ignore_case else char) for char in piece)
    return "".join(char or "." for char in chars)
