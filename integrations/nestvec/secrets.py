"""Taking passwords, keys and tokens out of texts, also out of a URL or DSN that nobody understood.

What is known to be a secret goes wherever it stands, in any form that it is quoted in. What only
looks like one goes too, for a text may be shown before anybody knew what was in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from .errors import NestvecError

__all__ = ["hidden", "redacted", "secrets_in", "secrets_of"]

#: What stands in the place of a secret, and what examples write there.
_STARS = "***"
_EXAMPLES = frozenset({"", "…", "...", "PASSWORD", "KEY", "TOKEN", _STARS, "None", "null"})

_FLAGS = re.IGNORECASE | re.MULTILINE | re.VERBOSE

#: The names that secrets have, whatever comes before: PGPASSWORD, x-api-key, client_secret.
_NAME = r"""(?P<name>(?<![^\W_])(?:
    \w*(?:password|passwd|passphrase|secret|api[_-]?key|access[_-]?key|account[_-]?key)
    |(?:\w+_)?(?:pwd|token|authorization|credentials?)
    |(?<=[?&])(?:key|sig|signature|pass|auth|code)))"""

#: A value in quotes, which goes on to the end of the line where they are not closed. In a repr
#: they are escaped.
_QUOTED = r"b?(?P<quote>\\*['\"])(?P<quoted>.*?)(?:(?<!\\)(?P=quote)|$)"

#: A value up to a space, or to the next parameter of a query. Punctuation ends it only where
#: nothing follows; a space may be escaped.
_BARE = r"""(?P<bare>(?:
    \\+[ ]|[^\s&'",;)\]}]|['",;)\]}](?=[^\s,;:.)\]}'"])|&(?![\w.-]+=)(?=\S))+)"""

_NAMED = (
    re.compile(rf"{_NAME}(?P<is>\s*=\s*(?:bearer\s+|basic\s+)?)(?:{_QUOTED}|{_BARE})", _FLAGS),
    # In a dict or a list of headers.
    re.compile(rf"{_NAME}(?P<is>\\*['\"]\s*[:,]\s*\(?\s*){_QUOTED}", _FLAGS),
    # As a header is written.
    re.compile(
        r"(?P<name>(?<![\w.])(?:[\w-]+-)?(?:password|api[_-]?key|authorization))"
        rf"(?P<is>:\s*(?:bearer\s+|basic\s+)?)(?:{_QUOTED}|{_BARE})",
        _FLAGS,
    ),
)

_LOOSE = (
    # In a URL, from USER: to the last @ of the word, because a password may have / # ? and @ in
    # it. It may have a space too, unless what follows the colon is a port.
    re.compile(
        r"""(?P<before>:/{1,3}[^\s:/@?\#'"\[]*:)
        (?P<secret>\S+(?=@)|(?!\d+(?:[/?\#'"\s,;)]|$))[^@\n]+(?=@))""",
        _FLAGS,
    ),
    # Without a scheme; `openai:MODEL@URL` is no such thing.
    re.compile(
        r"""(?P<before>(?<![\w:/.@%+-])[\w.%+-]+:)
        (?P<secret>[^\s'"/@]+)(?=@[\w.-]+(?::\d|/))(?!@https?:)""",
        _FLAGS,
    ),
    re.compile(r"""(?P<before>\bbearer\s+)(?P<secret>[^\s'",;)\]}]{4,})""", _FLAGS),
    re.compile(r"(?P<before>\bBasic\s+)(?P<secret>(?=\S*[\d+/=])[\w+/]{6,}={0,2})"),
    # h11, httpx and urllib3 quote a header that they cannot send.
    re.compile(r"""(?P<before>header[ ]value:?\s+)(?P<secret>b?(['"]).*?(?<!\\)\3|\S+)""", _FLAGS),
    # The keys of OpenAI, Hugging Face, Jina and Google, and tokens in the form of JWT.
    re.compile(
        r"(?P<before>)(?P<secret>\b(?:[sprk][ka]-(?=[\w-]*\d)[\w-]{10,}|(?:hf|jina|ghp)_\w{10,}"
        r"|AIza[\w-]{20,}|eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*))"
    ),
)


def redacted(text: str, *secrets: str | None) -> str:
    """Return a text without these secrets, in any form, and without what looks like one."""
    for form in _forms(secrets):
        text = form.sub(_STARS, text)
    for pattern in _NAMED:
        text = pattern.sub(_unnamed, text)
    for pattern in _LOOSE:
        text = pattern.sub(_starred, text)
    return text


def _value(found: re.Match[str]) -> str | None:
    groups = found.groupdict()
    return groups["quoted"] if groups["quote"] else groups.get("bare")


def _unnamed(found: re.Match[str]) -> str:
    if _value(found) in _EXAMPLES:
        return found[0]
    mark = found["quote"] or ""
    return f"{found['name']}{found['is']}{mark}{_STARS}{mark}"


def _starred(found: re.Match[str]) -> str:
    return found[0] if found["secret"] in _EXAMPLES else f"{found['before']}{_STARS}"


def _forms(secrets: Iterable[str | None]) -> list[re.Pattern[str]]:
    """Return what finds secrets as they are, stripped, percent-encoded, decoded, or in a repr."""
    forms: set[str] = set()
    for secret in secrets:
        for given in {secret or "", (secret or "").strip()}:
            for one in (given, unquote(given), unquote_plus(given)):
                coded = one.encode(errors="surrogatepass")
                forms |= {one, quote(coded), quote(coded, safe=""), quote_plus(coded)}
                forms |= {repr(one)[1:-1], repr(coded)[2:-1], repr(repr(one)[1:-1])[1:-1]}
    found = sorted(filter(None, forms), key=lambda form: (-len(form), form))
    # A short one may be a part of any word.
    return [
        re.compile(rf"(?<!\w){re.escape(form)}(?!\w)" if len(form) < 4 else re.escape(form))
        for form in found
    ]


def secrets_in(text: str) -> tuple[str, ...]:
    """Return what looks like a secret in a URL or DSN, to be taken out of what is said of it."""
    found = [_value(match) for pattern in _NAMED for match in pattern.finditer(text)]
    found += [match["secret"] for pattern in _LOOSE for match in pattern.finditer(text)]
    return tuple(secret for secret in found if secret and secret not in _EXAMPLES)


def secrets_of(url: object, options: object) -> tuple[str, ...]:
    """Return the secrets that a store was opened with: those of its URL and of its options."""
    found = list(secrets_in(str(url)))
    for field in getattr(options, "__dataclass_fields__", {}).values():
        value = None if field.repr else getattr(options, field.name)
        if isinstance(value, str):
            found.append(value)
    return tuple(found)


#: Environment variables that hold a secret. A short one is more likely a word, such as "none".
_VARIABLE = re.compile(r"API_KEY|PASSWORD|_TOKEN|SECRET")
_SHORTEST = 8


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if _VARIABLE.search(name) and len(value) >= _SHORTEST:
            yield value


def hidden(error: BaseException, *secrets: str) -> None:
    """Take secrets out of an error in place, and out of what a traceback shows before it.

    An error of others that tells one is no longer its cause or context; its text is not ours.
    """
    known = (*secrets, *_of_environment())
    waiting, seen = [error], {id(error)}
    while waiting:
        one = waiting.pop()
        if one is error or isinstance(one, NestvecError):
            _rewrite(one, known)
        for link in ("__cause__", "__context__"):
            before = getattr(one, link)
            if before is None or id(before) in seen:
                continue
            if isinstance(before, NestvecError) or not _tells(before, known):
                seen.add(id(before))
                waiting.append(before)
            else:
                suppressed = one.__suppress_context__
                setattr(one, link, None)
                one.__suppress_context__ = suppressed


def _rewrite(error: BaseException, secrets: Iterable[str]) -> None:
    args = tuple(redacted(a, *secrets) if isinstance(a, str) else a for a in error.args)
    if args != error.args:
        error.args = args
        if isinstance(error, ImportError):
            error.msg = str(args[0])


def _tells(error: BaseException, secrets: Iterable[str]) -> bool:
    told = "\n".join((str(error), repr(error), *map(str, getattr(error, "__notes__", ()))))
    return redacted(told, *secrets) != told
