"""nestvec beside what users have today: the same vectors, the same machine, one run.

    python -m benchmarks.compare run --quick
    python -m benchmarks.compare run --engines edge postgres --vectors synthetic --sizes 200000
    python -m benchmarks.compare report docs/benchmarks.json

`run` measures and writes JSON with a Markdown table beside it; `report` writes docs/benchmarks.md,
its pictures and the figures in the README from such a JSON.
"""
