"""Filters as SQL: one condition with parameters, which means what `Filter.matches` does.

Every key and value is a parameter. Nothing here can raise in the server, whatever the metadata
holds: types are tested first, dates are checked before they are computed with.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ..errors import FilterError
from ..filters import And, Eq, Filter, Ge, Gt, In, Le, Lt, Ne, Not, NotIn, Or, path
from .postgres_driver import SQL, Statement
from .postgres_wire import dumps, escape

__all__ = ["condition"]

_OPERATORS = {Eq: "=", Lt: "<", Le: "<=", Gt: ">", Ge: ">="}


def condition(where: Filter) -> Statement:
    """Return the condition; where it is NULL the filter does not match."""
    if isinstance(where, And):
        return _joined(" AND ", where.parts, "TRUE")
    if isinstance(where, Or):
        return _joined(" OR ", where.parts, "FALSE")
    if isinstance(where, Not):
        return _negated(condition(where.part))
    if isinstance(where, NotIn):
        return _negated(_any_of(where))
    if isinstance(where, In):
        return _any_of(where)
    if isinstance(where, Ne):
        return _negated(condition(Eq(where.key, where.value)))
    if isinstance(where, (Eq, Lt, Le, Gt, Ge)):
        return _comparison(where)
    raise FilterError(f"postgres has no translation of {where!r}")


def _joined(word: str, parts: Sequence[Filter], nothing: str) -> Statement:
    if not parts:
        return Statement(SQL(nothing))
    made = [condition(part) for part in parts]
    sql = SQL("({})").format(SQL(word).join(part.sql for part in made))
    return Statement(sql, sum((part.params for part in made), ()))


def _negated(inner: Statement) -> Statement:
    return Statement(SQL("({} IS NOT TRUE)").format(inner.sql), inner.params)


def _any_of(where: In) -> Statement:
    """Return one comparison with all plain values, and one for each datetime."""
    dated = [equal for equal in where.equals() if isinstance(equal.value, datetime)]
    plain = [dumps(value) for value in where.values if not isinstance(value, datetime)]
    if not plain:
        return _joined(" OR ", dated, "FALSE")
    leaf = _leaf(where.key)
    listed = Statement(SQL("{} @> ANY(%s::jsonb[])").format(leaf.sql), (*leaf.params, plain))
    if not dated:
        return listed
    others = _joined(" OR ", dated, "FALSE")
    return Statement(
        SQL("({} OR {})").format(listed.sql, others.sql), (*listed.params, *others.params)
    )


def _comparison(where: Eq | Lt | Le | Gt | Ge) -> Statement:
    leaf = _leaf(where.key)
    if isinstance(where.value, datetime):
        return _by_instant(leaf, _OPERATORS[type(where)], where.value)
    if isinstance(where, Eq):
        # A list contains a scalar that is one of its elements; types are told apart.
        sql = SQL("{} @> %s::jsonb").format(leaf.sql)
        return Statement(sql, (*leaf.params, dumps(where.value)))
    kind = "string" if isinstance(where.value, str) else "number"
    holds = f'@.type() == "{kind}" && @ {_OPERATORS[type(where)]} $v'
    # Lax paths would look into lists within lists. In a strict one [*] of what is no list makes
    # its half of the condition unknown, which is not true.
    test = f"strict $ ? (({holds}) || exists (@[*] ? ({holds})))"
    sql = SQL("jsonb_path_exists({}, %s::jsonpath, %s::jsonb)").format(leaf.sql)
    return Statement(sql, (*leaf.params, test, dumps({"v": where.value})))


def _leaf(key: str) -> Statement:
    """Return what a key holds: `->` with a text descends objects only, elsewhere it is NULL."""
    steps = path(key)
    sql = SQL("(metadata{})").format(SQL("").join([SQL(" -> %s::text")] * len(steps)))
    return Statement(sql, tuple(map(escape, steps)))


#: Year, month, day, time, sign, hours and minutes of the offset: `filters.instant`, with the
#: ranges that are the same in every month.
_MOMENT = (
    "^([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    "(?:[T ]((?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,6})?)?)"
    "(?:Z|([+-])([01][0-9]|2[0-3]):([0-9]{2}))?)?$"
)

_INSTANT = SQL(
    """EXISTS (
  SELECT FROM jsonb_path_query(
      CASE jsonb_typeof({leaf}) WHEN 'array' THEN {leaf} ELSE jsonb_build_array({leaf}) END,
      'strict $[*] ? (@.type() == "string")'
    ) AS item,
    regexp_match(item #>> '{{}}', %s) AS m
  WHERE CASE
    WHEN m IS NULL OR m[1] = '0000' THEN FALSE
    WHEN date_part('month', make_date(m[1]::int, m[2]::int, 1) + (m[3]::int - 1)) <> m[2]::int
      OR coalesce(m[6]::int * 60 + m[7]::int, 0) >= 1440 THEN FALSE
    ELSE (
      SELECT moment {operator} %s::timestamp
        AND moment BETWEEN '0001-01-01' AND '9999-12-31 23:59:59.999999'
      FROM (
        SELECT make_date(m[1]::int, m[2]::int, m[3]::int) + coalesce(m[4], '00:00')::time
          - make_interval(mins => coalesce((m[5] || '1')::int * (m[6]::int * 60 + m[7]::int), 0))
          AS moment
      ) AS at
    )
  END
)"""
)


def _by_instant(leaf: Statement, operator: str, value: datetime) -> Statement:
    sql = _INSTANT.format(leaf=leaf.sql, operator=SQL(operator))
    return Statement(sql, (*leaf.params * 3, _MOMENT, value.replace(tzinfo=None)))
