"""What the figures depend on: the machine and the versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

import nestvec

__all__ = ["machine", "versions"]

_PACKAGES = (
    "qdrant-edge-py", "qdrant-client", "psycopg", "pgvector", "langchain-core",
    "langchain-qdrant", "langchain-postgres", "llama-index-core",
    "llama-index-vector-stores-qdrant", "llama-index-vector-stores-postgres", "numpy",
)  # fmt: skip


def machine() -> dict[str, str | int | float]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    found = {"Python": platform.python_version(), "nestvec": nestvec.__version__}
    for package in _PACKAGES:
        try:
            # The server has a version of that name too.
            label = "pgvector-python" if package == "pgvector" else package
            found[label] = version(package)
        except PackageNotFoundError:
            continue
    return found
