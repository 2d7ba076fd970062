"""A path is resolved once, when the object that holds it is built."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

import nestvec
from nestvec import ConfigError
from nestvec.adaptors import RotationAdaptor
from nestvec.urls import absolute, located

from ..vectors import nested_vectors

SCHEMES = ("edge", "qdrant+local", "postgresql+embedded")

#: Local schemes that tests open quickly; a server of its own takes seconds to start.
QUICK = ("edge", "qdrant+local")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two directories, in the first of which the process is."""
    for name in "ab":
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    return tmp_path / "a", tmp_path / "b"


def made(url: str, text: str) -> None:
    with nestvec.connect(url, dims=(64,), embedder="static") as store:
        store.add([text], ids=["x"])


def text_of(url: str) -> str:
    with nestvec.connect(url) as store:
        return store.get(["x"])[0].text


@pytest.mark.parametrize("path", ["./papers", "papers", "../a/papers"])
@pytest.mark.parametrize("scheme", QUICK)
def test_a_store_stays_where_it_was_opened(
    places: tuple[Path, Path], scheme: str, path: str
) -> None:
    a, b = places
    made(f"{scheme}:{b / 'papers'}", "cats and dogs")
    made(f"{scheme}:{a / 'papers'}", "winter storms")
    store = nestvec.connect(f"{scheme}:{path}")
    os.chdir(b)
    assert store.get(["x"])[0].text == "winter storms"
    assert store.search("storms", 1)[0].id == "x"
    assert store.url == f"{scheme}:{a / 'papers'}"
    store.drop()
    store.close()
    assert text_of(f"{scheme}:{b / 'papers'}") == "cats and dogs"
    with pytest.raises(nestvec.CollectionMissing):
        nestvec.connect(f"{scheme}:{a / 'papers'}")


@pytest.mark.parametrize("scheme", QUICK)
def test_an_async_store_stays_where_it_was_opened(places: tuple[Path, Path], scheme: str) -> None:
    a, b = places
    made(f"{scheme}:{a / 'papers'}", "winter storms")

    async def body() -> str:
        async with nestvec.aconnect(f"{scheme}:./papers") as store:
            os.chdir(b)
            return (await store.get(["x"]))[0].text

    assert asyncio.run(body()) == "winter storms"
    assert not (b / "papers").exists()


@pytest.mark.parametrize("scheme", QUICK)
def test_a_pickle_carries_the_absolute_path(places: tuple[Path, Path], scheme: str) -> None:
    a, b = places
    made(f"{scheme}:{a / 'papers'}", "winter storms")
    with nestvec.connect(f"{scheme}:./papers") as store:
        pickled = pickle.dumps(store)
    os.chdir(b)
    with pickle.loads(pickled) as again:
        assert again.get(["x"])[0].text == "winter storms"


def test_an_embedded_server_stays_where_it_was_opened(places: tuple[Path, Path]) -> None:
    a, _ = places
    assert (
        located("postgresql+embedded:./pg?schema=s") == f"postgresql+embedded:{a / 'pg'}?schema=s"
    )


def test_the_files_of_a_postgres_url_stay(places: tuple[Path, Path]) -> None:
    a, _ = places
    url = located("postgresql://me@h/db?sslrootcert=./ca.pem&sslmode=verify-full&passfile=p")
    assert url == f"postgresql://me@h/db?sslrootcert={a}/ca.pem&sslmode=verify-full&passfile={a}/p"
    assert located("postgresql://h/db?sslrootcert=system").endswith("=system")


def test_home_is_written_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [located(f"{scheme}:~/x") for scheme in SCHEMES] == [
        f"{scheme}:{tmp_path}/x" for scheme in SCHEMES
    ]


def test_a_link_is_left_before_going_up(places: tuple[Path, Path]) -> None:
    a, b = places
    (b / "inside").mkdir()
    (a / "link").symlink_to(b / "inside")
    assert absolute("link/../x") == str(b / "x")
    assert absolute("link/x") == str(a / "link" / "x")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("place", "advice"),
    [
        ("//./papers", "write '{scheme}:./papers'"),
        ("//papers", "write '{scheme}:./papers' or '{scheme}:/papers'"),
        ("//../papers", "write '{scheme}:../papers'"),
        ("//~/papers", "write '{scheme}:~/papers'"),
        ("////papers", "write '{scheme}:./papers' or '{scheme}:/papers'"),
        ("//", "needs a directory, as in '{scheme}:./papers'"),
        ("", "needs a directory, as in '{scheme}:./papers'"),
        ("file:./papers", "write '{scheme}:' and the path"),
        ("file:///papers", "write '{scheme}:' and the path"),
        (" ./papers", "has spaces around its directory"),
        ("~nobody-of-this-name/x", "leads nowhere"),
    ],
)  # fmt: skip
def test_what_a_url_cannot_mean_is_refused(
    places: tuple[Path, Path], scheme: str, place: str, advice: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        nestvec.connect(f"{scheme}:{place}", dims=(2,), dim=4)
    assert advice.format(scheme=scheme) in str(caught.value)
    assert not any(places[0].iterdir())


def test_three_slashes_are_an_absolute_path(places: tuple[Path, Path]) -> None:
    assert located(f"edge://{places[0]}/x") == f"edge:{places[0]}/x"


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        (None, "is the variable that it comes from set?"),
        ("", "is the variable that it comes from set?"),
        ("  ", "is the variable that it comes from set?"),
        (Path("papers"), "write 'edge:papers'"),
        (b"edge:./papers", "url is a text"),
        (7, "url is a text"),
        ("papers", "write 'edge:papers'"),
        ("./papers", "write 'edge:./papers'"),
        ("/data/papers", "write 'edge:/data/papers'"),
        ("file:///data/papers", "write 'edge:./papers' or 'edge:/data/papers'"),
        ("edge:./papers\n", "spaces or a newline around it"),
        ("edge:./pap\0ers", "a NUL"),
        ("edge:./pap\udcff", "a lone surrogate"),
        ("sqlite:x", "unknown URL scheme 'sqlite'; known are memory:"),
        ("host=h user=u", "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"),
    ],
)
def test_what_is_no_url_is_refused(places: tuple[Path, Path], url: Any, advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        nestvec.connect(url, dims=(2,), dim=4)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        asyncio.run(nestvec.aconnect(url, dims=(2,), dim=4))
    assert not any(places[0].iterdir())


def test_a_working_directory_that_is_gone(places: tuple[Path, Path]) -> None:
    (places[0] / "gone").mkdir()
    os.chdir(places[0] / "gone")
    (places[0] / "gone").rmdir()
    with pytest.raises(ConfigError, match="leads nowhere"):
        nestvec.connect("edge:./papers", dims=(2,), dim=4)


def test_an_adaptor_is_read_when_the_store_is_opened(places: tuple[Path, Path]) -> None:
    RotationAdaptor.fit(nested_vectors(200, 8)).save("a.safetensors")
    url = f"edge:{places[0]}/x"
    store = nestvec.connect(url, dims=(2,), dim=8, adaptor="a.safetensors")
    os.chdir(places[1])
    pickled = pickle.dumps(store)
    store.close()
    with pickle.loads(pickled) as again:
        assert again.adaptor is not None
    assert copy.deepcopy(again) is again
