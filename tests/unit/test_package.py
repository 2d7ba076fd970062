"""The package as a whole: who imports whom, what is public, what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nestvec
from nestvec import errors

PACKAGE = Path(nestvec.__file__).parent

#: A module imports from its own layer and the layers before it.
LAYERS = [
    {"errors"},
    {"options", "processes", "secrets", "unbuilt"},
    {"urls"},
    {"flow", "nesting"},
    {"records"},
    {"filter_forms", "filter_nodes", "filter_values", "filters", "funnel"},
    {"certificate", "queries", "sizing"},
    {"backends", "embedders", "adaptors"},
    {"advice", "sources"},
    {"collection"},
    {"mending", "reach", "reshaping", "truth", "tuning"},
    {"opening"},
    {"store"},
    {"datasets"},
    {"plots"},
    {"evaluation", "fitting"},
    {"training"},
    {"adapting"},
    {"langchain", "llama_index"},
    {
        "cli",
        "cli_tuning",
        "tuning_plots",
        "conditions",
        "console",
        "demo",
        "ingest",
        "passages",
        "stdlib_docs",
    },
]

#: Third-party packages that `import nestvec` may load.
LIGHT = {"numpy"}

#: What clients and frameworks are themselves written in, so that speaking to one needs it.
COMMON = {"pydantic"}


def layer(module: str) -> int:
    return next(n for n, names in enumerate(LAYERS) if module in names)


def modules() -> dict[str, ast.Module]:
    return {
        str(file.relative_to(PACKAGE).with_suffix("")).replace("/", "."): ast.parse(
            file.read_text()
        )
        for file in PACKAGE.rglob("*.py")
    }


def imports(module: str, tree: ast.Module) -> set[str]:
    """Return the dotted names that a module imports, its own package's as `nestvec.…`."""
    package = ["nestvec", *module.split(".")[:-1]]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {".".join([*base, str(name)]) for name in names}
    return found


def inner(names: set[str]) -> set[str]:
    return {name.split(".", 1)[1] for name in names if name.startswith("nestvec.")}


def test_modules_import_only_from_their_layer_and_those_before() -> None:
    for module, tree in modules().items():
        if module in ("__init__", "__main__"):
            continue
        own = module.split(".")[0]
        for name in inner(imports(module, tree)):
            other = name.split(".")[0]
            assert layer(other) <= layer(own), f"{module} imports {name}"


def test_backends_do_not_import_each_other() -> None:
    shared = {f"backends.{name}" for name in ("base", "point_filters", "point_indexes", "points")}
    for module, tree in modules().items():
        if module.startswith("backends."):
            others = {n for n in inner(imports(module, tree)) if n.startswith("backends.")}
            engine = module.partition("_")[0]  # an engine's files begin with its name
            assert {n for n in others if n.partition("_")[0] != engine} <= shared, module


def test_a_third_party_package_is_imported_in_one_file() -> None:
    where: dict[str, set[str]] = {}
    for module, tree in modules().items():
        for name in imports(module, tree):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top not in {"nestvec", *LIGHT, *COMMON}:
                where.setdefault(top, set()).add(module)
    assert where, "the check found no imports at all"
    assert {top: files for top, files in where.items() if len(files) > 1} == {}


def test_public_names_are_listed_sorted_and_there() -> None:
    assert nestvec.__all__ == sorted(nestvec.__all__)
    for name in nestvec.__all__:
        assert getattr(nestvec, name).__doc__, name
    imported = {
        name
        for name, value in vars(nestvec).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("nestvec.")
    }
    assert imported == set(nestvec.__all__)


def test_every_error_is_public_and_drawn_in_the_tree() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert name in nestvec.__all__
        assert f" {name} " in f" {errors.__doc__}".replace("\n", " ")
        assert issubclass(getattr(errors, name), (errors.NestvecError, errors.IndexWarning))
    assert issubclass(nestvec.FunnelError, ValueError)
    assert issubclass(nestvec.CollectionMissing, LookupError)
    assert issubclass(nestvec.Unavailable, ConnectionError)
    assert issubclass(nestvec.MissingExtra, ImportError)
    assert str(nestvec.MissingExtra("typer", "cli")).endswith("pip install 'nestvec[cli]'")


def loaded(code: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has loaded after some code."""
    script = f"import sys; {code}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import nestvec", "import nestvec; nestvec.F('a') == 1"])
def test_importing_loads_numpy_and_nothing_heavier(code: str) -> None:
    third_party = loaded(code) - loaded("import numpy") - set(sys.stdlib_module_names)
    assert {name for name in third_party if not name.startswith("_")} == {"nestvec"}


def test_memory_needs_no_engine() -> None:
    assert "qdrant_edge" not in loaded(
        "import nestvec; nestvec.connect('memory:', dims=(2,), dim=4)"
    )
    assert "qdrant_edge" in loaded("import nestvec.backends.edge")


@pytest.mark.parametrize(
    ("blocked", "module", "package", "extra"),
    [
        ("langchain_core", "langchain", "langchain-core", "langchain"),
        ("llama_index", "llama_index", "llama-index-core", "llama-index"),
    ],
)
def test_an_adapter_says_which_extra_it_needs(
    blocked: str, module: str, package: str, extra: str
) -> None:
    script = (
        f"import sys; sys.modules[{blocked!r}] = None\n"
        "import nestvec\n"
        f"try:\n    import nestvec.{module}\n"
        "except nestvec.MissingExtra as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == (f"{package} is not installed; run: pip install 'nestvec[{extra}]'\n")
