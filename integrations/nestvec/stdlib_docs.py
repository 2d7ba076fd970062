"""The docstrings of Python's standard library: real text that every machine has.

Python sources are parsed, never imported. What is written in C is asked by importing a few
modules that only define things.
"""

from __future__ import annotations

import ast
import inspect
import os
import sysconfig
import types
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from .errors import NestvecError
from .passages import Document, passage_id, split
from .records import Record

__all__ = ["PREFIX", "documents", "sources"]

#: What the ids begin with.
PREFIX = "python:"

#: Directories of tests, of other people's packages, and of what nobody imports (any more).
_SKIPPED = {
    "test", "tests", "idle_test", "site-packages", "dist-packages", "distutils", "ensurepip",
    "idlelib", "lib2to3", "turtledemo",
}  # fmt: skip

#: Modules that are C wholly or in part, and do nothing when imported.
_IN_C = (
    "builtins", "array", "asyncio", "binascii", "bisect", "bz2", "cmath", "collections",
    "contextvars", "csv", "datetime", "decimal", "errno", "fcntl", "functools", "gc", "hashlib",
    "heapq", "io", "itertools", "json", "locale", "lzma", "marshal", "math", "mmap", "operator",
    "os", "pickle", "pwd", "pyexpat", "queue", "random", "re", "resource", "select", "signal",
    "socket", "sqlite3", "ssl", "statistics", "string", "struct", "symtable", "sys", "syslog",
    "termios", "threading", "time", "types", "unicodedata", "uuid", "weakref", "zlib",
)  # fmt: skip

#: Docstrings shorter than this, such as "See above.", answer nothing.
_LEAST = 16


class _Doc(NamedTuple):
    module: str
    name: str
    kind: str
    text: str


def sources() -> list[Path]:
    """Return the standard library's public Python sources. Raises NestvecError without any."""
    root, found = sysconfig.get_path("stdlib"), []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in _SKIPPED and not f.startswith("_"))
        public = (file for file in sorted(files) if file == "__init__.py" or file[0] != "_")
        found += [Path(folder, file) for file in public if file.endswith(".py")]
    if not found:
        raise NestvecError(f"{root} has no Python sources, so there is nothing to show")
    return found


def documents(paths: Iterable[Path]) -> Iterator[Document]:
    """Yield one document for each docstring of Python sources, then of what is written in C."""
    root = Path(sysconfig.get_path("stdlib"))
    seen = set()
    for path in paths:
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for doc in _in_source(module, path):
            if doc.name not in seen:
                seen.add(doc.name)
                yield _document(doc)
    for module in _IN_C:
        for doc in _in_c(module):
            if doc.name not in seen:
                seen.add(doc.name)
                yield _document(doc)


def _document(doc: _Doc) -> Document:
    id = f"{PREFIX}{doc.name}"
    metadata = {"module": doc.module, "name": doc.name, "kind": doc.kind}
    passages = tuple(
        Record(passage_id(id, n), f"{doc.name}: {passage}", {**metadata, "passage": n})
        for n, (_, passage) in enumerate(split(doc.text))
    )
    return Document(id, passages, len(doc.text))


# Python


def _in_source(module: str, path: Path) -> Iterator[_Doc]:
    tree = ast.parse(path.read_bytes())
    if text := _docstring(tree):
        yield _Doc(module, module, "module", text)
    yield from _inside(tree, module, module)
    if path.name == "__init__.py":
        yield from _taken_in(tree, module, path.parent)


def _taken_in(tree: ast.Module, module: str, folder: Path) -> Iterator[_Doc]:
    """Yield the docstrings of what a package takes from its private modules, as pathlib does."""
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        private = folder / f"{node.module.removeprefix(f'{module}.')}.py"
        if not private.name.startswith("_") or not private.is_file():
            continue
        names = {alias.name for alias in node.names}
        for doc in _inside(ast.parse(private.read_bytes()), module, module):
            top = doc.name.removeprefix(f"{module}.").partition(".")[0]
            if top in names or "*" in names:
                yield doc


def _inside(node: ast.Module | ast.ClassDef, module: str, name: str) -> Iterator[_Doc]:
    """Yield the docstrings of the public classes, functions and methods of a module or class."""
    for child in node.body:
        if not isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if child.name.startswith("_"):
            continue
        own = f"{name}.{child.name}"
        if text := _docstring(child):
            method = "method" if isinstance(node, ast.ClassDef) else "function"
            kind = "class" if isinstance(child, ast.ClassDef) else method
            yield _Doc(module, own, kind, text)
        if isinstance(child, ast.ClassDef):
            yield from _inside(child, module, own)


def _docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> str | None:
    text = ast.get_docstring(node)
    return text if text and len(text) >= _LEAST else None


# C


def _in_c(module: str) -> Iterator[_Doc]:
    try:
        found = import_module(module)
    except ImportError:  # a Python built without it
        return
    for name, value in sorted(vars(found).items()):
        if name.startswith("_") or not _belongs(value, module):
            continue
        own = name if module == "builtins" else f"{module}.{name}"
        if text := _doc(value):
            yield _Doc(module, own, "class" if isinstance(value, type) else "function", text)
        if isinstance(value, type):
            yield from _methods(value, module, own)


def _belongs(value: Any, module: str) -> bool:
    """Return whether a value is a class or function in C that this module defines."""
    if not isinstance(value, (type, types.BuiltinFunctionType)):
        return False
    home = value.__module__ or module
    return home.lstrip("_") == module or (module == "os" and home == "posix")


def _methods(cls: type, module: str, name: str) -> Iterator[_Doc]:
    for method, value in sorted(vars(cls).items()):
        # A function was written in Python: its source was read already.
        if method.startswith("_") or not inspect.isroutine(value) or inspect.isfunction(value):
            continue
        if text := _doc(value):
            yield _Doc(module, f"{name}.{method}", "method", text)


def _doc(value: Any) -> str | None:
    text = inspect.getdoc(value)
    return text if text and len(text) >= _LEAST else None
