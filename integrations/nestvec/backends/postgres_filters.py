"""Filters as SQL: one condition with parameters, which means what `Filter.matches` does.

Every key and value is a parameter. Nothing here can raise in the server, whatever the metadata
holds: types are tested first, dates are checked before they are computed with. Equality is
containment in the whole of metadata, which a GIN index serves; other comparisons of a key are
typed expressions, which a btree index on the expression serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from ..filter_values import Step, is_word, path, pattern, variants
from ..filters import (
    And,
    Between,
    Eq,
    Exists,
    Filter,
    Ge,
    Gt,
    IdIn,
    In,
    IsEmpty,
    Le,
    Like,
    Lt,
    Matches,
    Ne,
    Not,
    NotIn,
    Or,
)  # fmt: skip
from .postgres_driver import SQL, Statement
from .postgres_wire import dumps, escape

__all__ = ["condition", "ordered"]

_Ordered = Lt | Le | Gt | Ge | Between


def condition(where: Filter) -> Statement:
    """Return the condition; where it is NULL the filter does not match."""
    if isinstance(where, And):
        return _joined(" AND ", where.parts, "TRUE")
    if isinstance(where, Or):
        return _joined(" OR ", where.parts, "FALSE")
    if isinstance(where, Not):
        return _negated(condition(where.part))
    if isinstance(where, NotIn):
        return _negated(condition(In(where.key, where.values)))
    if isinstance(where, Ne):
        return _negated(condition(Eq(where.key, where.value)))
    if isinstance(where, IdIn):
        return Statement(SQL("id = ANY(%s::text[])"), ([escape(id) for id in where.ids],))
    if isinstance(where, (Eq, In)):
        return _equal(where)
    if isinstance(where, (Exists, IsEmpty)):
        return _present(where)
    assert isinstance(where, (Lt, Le, Gt, Ge, Between, Matches, Like)), where
    return _somewhere(where)


def _joined(word: str, parts: Sequence[Filter], nothing: str) -> Statement:
    if not parts:
        return Statement(SQL(nothing))
    return _combined(word, [condition(part) for part in parts])


def _combined(word: str, made: Sequence[Statement]) -> Statement:
    sql = SQL("({})").format(SQL(word).join(part.sql for part in made))
    return Statement(sql, sum((part.params for part in made), ()))


def _negated(inner: Statement) -> Statement:
    return Statement(SQL("({} IS NOT TRUE)").format(inner.sql), inner.params)


# Keys


def _leaf(steps: Sequence[Step]) -> Statement:
    """Return what a key holds: `->` with a text descends objects only, elsewhere it is NULL."""
    sql = SQL("(metadata{})").format(SQL("").join([SQL(" -> %s::text")] * len(steps)))
    return Statement(sql, tuple(escape(step) for step in steps if step is not None))


def _jsonpath(steps: Sequence[Step]) -> str:
    """Return the path to all that a key leads to.

    A lax path would look into lists by itself, and a strict one end where a step leads nowhere.
    """
    written = (
        ' ? (@.type() == "array")[*]'
        if step is None
        else f" ? (exists (@.{dumps(step)})).{dumps(step)}"
        for step in steps
    )
    return "strict $" + "".join(written)


def _somewhere(where: _Ordered | Matches | Like) -> Statement:
    """Return the condition that any of what a key leads to satisfies a condition."""
    steps = path(where.key)
    if None not in steps:
        return _holds(_leaf(steps), where)
    inner = _holds(Statement(SQL("found")), where)
    sql = SQL("EXISTS (SELECT FROM jsonb_path_query(metadata, %s::jsonpath) AS found WHERE {})")
    return Statement(sql.format(inner.sql), (_jsonpath(steps), *inner.params))


def _present(where: Exists | IsEmpty) -> Statement:
    steps = path(where.key)
    if None in steps:
        # What a filter in a path compares with is a scalar, so a list is known by its size.
        some = '(@.type() == "array" && @.size() > 0) || !(@.type() == "array" || @ == null)'
        test = "" if isinstance(where, Exists) else f" ? ({some})"
        sql = SQL("jsonb_path_exists(metadata, %s::jsonpath)")
        found = Statement(sql, (_jsonpath(steps) + test,))
        return found if isinstance(where, Exists) else _negated(found)
    leaf = _leaf(steps)
    form = (
        "({} IS NOT NULL)"
        if isinstance(where, Exists)
        else ("(coalesce({}, 'null') IN ('null', '[]'))")
    )
    return Statement(SQL(form).format(leaf.sql), leaf.params)


# Equality


def _equal(where: Eq | In) -> Statement:
    """Return one containment for all plain values, and a comparison for each datetime."""
    steps = path(where.key)
    values = where.values if isinstance(where, In) else (where.value,)
    dated = [value for value in values if isinstance(value, datetime)]
    made = [_somewhere(Between(where.key, value, value)) for value in dated]
    if len(dated) < len(values):
        forms = [
            dumps(_within(steps, held))
            for value in values
            if not isinstance(value, datetime)
            for held in (value, [value])
        ]
        made.append(Statement(SQL("metadata @> ANY(%s::jsonb[])"), (forms,)))
    return made[0] if len(made) == 1 else _combined(" OR ", made)


def _within(steps: Sequence[Step], value: Any) -> Any:
    """Return the metadata that holds a value at a path, and nothing else."""
    for step in reversed(steps):
        value = [value] if step is None else {step: value}
    return value


# Comparisons and text

_OPERATORS = {Lt: "<", Le: "<=", Gt: ">", Ge: ">="}


def _ends(where: _Ordered) -> list[tuple[str, Any]]:
    if isinstance(where, Between):
        return [(">=", where.low), ("<=", where.high)]
    return [(_OPERATORS[type(where)], where.value)]


def _holds(leaf: Statement, where: _Ordered | Matches | Like) -> Statement:
    """Return the condition on what is at one place: a scalar, or a list with one that fits."""
    if isinstance(where, (Matches, Like)):
        return _text(leaf, where)
    ends = _ends(where)
    if isinstance(ends[0][1], datetime):
        return _by_instant(leaf, ends)
    kind = "string" if isinstance(ends[0][1], str) else "number"
    tests = [test for operator, end in ends for test in _compared(leaf, kind, operator, end)]
    single = _combined(" AND ", tests)
    holds = " && ".join(f"@ {operator} $v{i}" for i, (operator, _) in enumerate(ends))
    names = {f"v{i}": end for i, (_, end) in enumerate(ends)}
    # In a strict path, so that it does not look into lists within the list.
    sql = SQL(
        "({} OR (jsonb_typeof({}) = 'array' AND jsonb_path_exists({}, %s::jsonpath, %s::jsonb)))"
    ).format(single.sql, leaf.sql, leaf.sql)
    test = f'strict $[*] ? (@.type() == "{kind}" && {holds})'
    return Statement(sql, (*single.params, *leaf.params * 2, test, dumps(names)))


def _compared(leaf: Statement, kind: str, operator: str, end: Any) -> list[Statement]:
    """Return a comparison that an index serves, and where it has beginnings only the exact one."""
    indexed, exact = ordered(leaf, kind), _typed(leaf, kind)
    if kind == "number":
        sql = SQL(f"{{}} {operator} %s::numeric").format(indexed.sql)
        return [Statement(sql, (*indexed.params, dumps(end)))]
    text = escape(end)
    near = SQL(f"{{}} {operator[0]}= %s::text").format(indexed.sql)
    test = SQL(f"{{}} {operator} %s::text").format(exact.sql)
    return [
        Statement(near, (*indexed.params, text[:_BEGINNING])),
        Statement(test, (*exact.params, text)),
    ]


#: Characters of a string that an index holds, since btree takes no more than 2,704 bytes.
_BEGINNING = 256


def ordered(leaf: Statement, kind: str) -> Statement:
    """Return what an index holds of a number or string: numbers, and beginnings of strings."""
    value = _typed(leaf, kind)
    if kind == "number":
        return value
    return Statement(SQL(f"left({{}}, {_BEGINNING})").format(value.sql), value.params)


def _typed(leaf: Statement, kind: str) -> Statement:
    """Return a string or number as a value that can be compared, else NULL."""
    value = "({} #>> '{{}}') COLLATE \"C\"" if kind == "string" else "({})::numeric"
    sql = SQL(f"(CASE jsonb_typeof({{}}) WHEN '{kind}' THEN {value} END)")
    return Statement(sql.format(leaf.sql, leaf.sql), leaf.params * 2)


_ITEMS = """EXISTS (
  SELECT FROM jsonb_path_query(
    CASE jsonb_typeof({leaf}) WHEN 'array' THEN {leaf} ELSE jsonb_build_array({leaf}) END,
    'strict $[*] ? (@.type() == "string")'
  ) AS item{rest}
)"""


def _text(leaf: Statement, where: Matches | Like) -> Statement:
    regexes = [_like(where)] if isinstance(where, Like) else list(map(_word, where.words))
    tests = SQL(" AND ").join([SQL("(item #>> '{{}}') COLLATE \"C\" ~ %s").format()] * len(regexes))
    sql = SQL(_ITEMS).format(leaf=leaf.sql, rest=SQL(" WHERE {}").format(tests))
    return Statement(sql, (*leaf.params * 3, *regexes))


#: Any one character, as it is stored: NUL and U+0001 are two.
_ANY = "(?:\x01.|[^\x01])"


def _like(where: Like) -> str:
    pieces = (
        "".join(
            _ANY if char is None else _literal(char, ignore_case=where.ignore_case)
            for char in piece
        )
        for piece in pattern(where.pattern)
    )
    return f"^{f'{_ANY}*'.join(pieces)}$"


def _word(word: str) -> str:
    literal = "".join(_literal(char, ignore_case=True) for char in word)
    return f"(?:^|[^{_word_characters()}]){literal}(?:$|[^{_word_characters()}])"


def _literal(char: str, *, ignore_case: bool) -> str:
    """Return a character in a regular expression that no locale can change the meaning of."""
    same = variants(char) if ignore_case else char
    if len(same) > 1:
        return f"[{same}]"
    return "".join(c if c.isalnum() or ord(c) > 127 else f"\\{c}" for c in escape(char))


@lru_cache(maxsize=1)
def _word_characters() -> str:
    """Return the ranges of the characters that belong to words."""
    ranges: list[list[int]] = []
    for code in filter(lambda code: is_word(chr(code)), range(1, 0x110000)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges)


# Moments

#: Year, month, day, time, sign, hours and minutes of the offset: `filters.instant`, with the
#: ranges that are the same in every month.
_MOMENT = (
    "^([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    "(?:[T ]((?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,6})?)?)"
    "(?:Z|([+-])([01][0-9]|2[0-3]):([0-9]{2}))?)?$"
)

_INSTANT = """,
  regexp_match(item #>> '{{}}', %s) AS m
  WHERE CASE
    WHEN m IS NULL OR m[1] = '0000' THEN FALSE
    WHEN date_part('month', make_date(m[1]::int, m[2]::int, 1) + (m[3]::int - 1)) <> m[2]::int
      OR coalesce(m[6]::int * 60 + m[7]::int, 0) >= 1440 THEN FALSE
    ELSE (
      SELECT {tests} AND moment BETWEEN '0001-01-01' AND '9999-12-31 23:59:59.999999'
      FROM (
        SELECT make_date(m[1]::int, m[2]::int, m[3]::int) + coalesce(m[4], '00:00')::time
          - make_interval(mins => coalesce((m[5] || '1')::int * (m[6]::int * 60 + m[7]::int), 0))
          AS moment
      ) AS at
    )
  END"""


def _by_instant(leaf: Statement, ends: Sequence[tuple[str, Any]]) -> Statement:
    tests = SQL(" AND ").join(SQL(f"moment {operator} %s::timestamp") for operator, _ in ends)
    sql = SQL(_ITEMS).format(leaf=leaf.sql, rest=SQL(_INSTANT).format(tests=tests))
    moments = (end.replace(tzinfo=None) for _, end in ends)
    exact = Statement(sql, (*leaf.params * 3, _MOMENT, *moments))
    return _combined(" AND ", [_near(leaf, ends), exact])


def _near(leaf: Statement, ends: Sequence[tuple[str, Any]]) -> Statement:
    """Return what an index can tell of a moment: lists, and strings that are days close to it.

    Strings in ISO form order by their days, which an offset moves by one at most.
    """
    value = ordered(leaf, "string")
    tests = [Statement(SQL("jsonb_typeof({}) = 'string'").format(leaf.sql), leaf.params)]
    for operator, end in ends:
        later = operator.startswith("<")
        with suppress(OverflowError):
            day = (end + timedelta(days=2 if later else -1)).date().isoformat()
            sql = SQL(f"{{}} {'<' if later else '>='} %s::text").format(value.sql)
            tests.append(Statement(sql, (*value.params, day)))
    listed = Statement(SQL("jsonb_typeof({}) = 'array'").format(leaf.sql), leaf.params)
    return _combined(" OR ", [_combined(" AND ", tests), listed])
