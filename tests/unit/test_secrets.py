"""What is taken out of a text, and what is left."""

from __future__ import annotations

import traceback
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nestvec.errors import BackendError
from nestvec.secrets import hidden, redacted, secrets_in

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        "host=h user=u password=hunter2",
        "host=h user = u password = 'hun\\'t er2 hunter2' dbname=d",
        repr("host=h password='a b hunter2' user=u"),
        "host=h password='hunter2",
        "host=h password=a\\ hunter2",
        "password=a&hunter2 user=u",
        "sslpassword=hunter2 PGPASSWORD=hunter2",
        "postgresql://u:a/hunter2@host/db",
        "postgresql://u:a#hunter2@host/db",
        "postgresql://u:a?hunter2@host/db",
        "postgresql://u:a@hunter2@host/db",
        "postgresql://u:a hunter2 b@host:5432/db",
        "postgresql:u:hunter2@host:5432/db",
        "postgresql://host/db?sslmode=require&password=hunter2&x=1",
        "postgresql://:hunter2@host/db",
        "u:hunter2@host:5432/db",
        "http://host:6333?api_key=hunter2",
        "http://host:6333/x?key=hunter2#y",
        "https://host/?access_token=hunter2",
        "{'api_key': 'hunter2', 'x': 1}",
        '{"password": "hunter2"}',
        "connect('http://h', api_key='hunter2')",
        "[('api-key', b'hunter2\\n')]",
        "api-key: hunter2",
        "Authorization: Bearer hunter2",
        "Illegal header value b'hunter2\\n'",
        "illegal header value: hunter2",
        "QDRANT_API_KEY=hunter2",
        "incorrect API key provided: sk-proj-hunter2hunter2",
    ],
)
def test_what_looks_like_a_secret_goes(text: str) -> None:
    shown = redacted(text)
    assert SECRET not in shown
    assert "***" in shown
    assert any(SECRET in found for found in secrets_in(text))
    assert redacted(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "no collection 'docs' in postgresql://me@host:5432/db; to make it say which fields it has",
        "postgresql://me@h1:5432,h2:5433/db",
        "has embedder 'openai:m@http://localhost:11434/v1'; asked for 'openai:n@http://b:2/v1'",
        "http://localhost:6333 is open in another process; ask me@example.org",
        "http://[::1]:6333 refused; see http://h:6334",
        "key 'token': compare with one value, not [1]; in_ takes several",
        "record 'a': metadata.password: builtins.set is not JSON",
        "record 'chapter:3@v2': text is blank",
        "record 'pkg:npm/left-pad@1.3.0': text is blank",
        "edge:./me@corp/papers is open in another process",
        "check api_key, or QDRANT_API_KEY",
        "a key goes into api_key=… or QDRANT_API_KEY",
        "its form is postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
        "the server refused the token; basic authentication is off",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


@given(st.text(min_size=4), st.text(), st.text())
def test_a_known_secret_goes_in_every_form(secret: str, before: str, after: str) -> None:
    assume("*" not in secret and secret.strip())
    coded = quote(secret.encode(errors="surrogatepass"), safe="")
    for form in (secret, repr(secret)[1:-1], coded):
        assert form not in redacted(f"{before}{form}{after}", secret)


def test_a_key_goes_without_its_newline_too() -> None:
    assert redacted("'q7w8e9r0' is no key", "q7w8e9r0\n") == "'***' is no key"
    assert redacted("value b'q7w8e9r0\\n'", "q7w8e9r0\n") == "value b'***'"


def test_a_short_secret_is_no_part_of_a_word() -> None:
    assert redacted("the password ab of abacus", "ab") == "the password *** of abacus"


def _failed() -> BackendError:
    try:
        try:
            raise ValueError(f"could not read {SECRET}")
        except ValueError as error:
            raise BackendError(f"refused: {error}") from error
    except BackendError as error:
        return error


def test_an_error_and_what_came_before_it_lose_the_secret() -> None:
    error = _failed()
    hidden(error, SECRET)
    assert str(error) == "refused: could not read ***"
    assert error.__cause__ is None
    assert error.__context__ is None
    assert SECRET not in "".join(traceback.format_exception(error, chain=True))


def test_a_suppressed_context_loses_the_secret() -> None:
    try:
        try:
            raise ValueError(SECRET)
        except ValueError:
            raise BackendError("refused") from None
    except BackendError as error:
        caught = error
    hidden(caught, SECRET)
    assert caught.__context__ is None
    assert caught.__suppress_context__


def test_a_cause_without_the_secret_stays() -> None:
    error = _failed()
    hidden(error, "something else")
    assert isinstance(error.__cause__, ValueError)


def test_secrets_of_the_environment_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOYAGE_API_KEY", "q7w8e9r0t1")
    error = BackendError("refused q7w8e9r0t1")
    hidden(error)
    assert str(error) == "refused ***"
