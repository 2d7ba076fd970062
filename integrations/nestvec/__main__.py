"""`nestvec` and `python -m nestvec`: the command line, or how to install what it needs."""

from __future__ import annotations

import json
import sys

from .errors import MissingExtra

__all__ = ["main"]

_EXTRA = ("rich", "semantic_text_splitter", "typer")


def main() -> int:
    """Run the command line; return its exit code."""
    try:
        from . import cli
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in _EXTRA:
            raise
        missing = str(MissingExtra(package, "cli"))
        as_json = json.dumps({"error": missing, "type": "MissingExtra"})
        sys.stderr.write((as_json if "--json" in sys.argv else f"error: {missing}") + "\n")
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
