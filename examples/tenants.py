"""Many tenants in one Qdrant collection, each with an index and a graph of its own.

python examples/tenants.py                          in a directory, without a server
QDRANT_URL=http://localhost:6333 python examples/tenants.py
"""

import os

import nestvec
from nestvec import F

url = os.environ.get("QDRANT_URL", "qdrant+local:./tenants")

with nestvec.connect(
    url,
    collection="tenants",
    dims=(64,),
    embedder="static",
    tenant_key="team",  # an is_tenant index on it, and payload_m in place of m
    payload_indexes={"year": "float"},  # whole numbers too
) as store:
    store.add(
        ["the budget for next year", "how to book a room", "the budget for the new office"],
        metadatas=[
            {"team": "finance", "year": 2026},
            {"team": "people", "year": 2025},
            {"team": "people", "year": 2026},
        ],
        ids=["f1", "p1", "p2"],
    )
    # Every search names its tenant: there is no graph over all of them.
    for hit in store.search("money", where=F("team") == "people"):
        print(hit.id, round(hit.score, 2), hit.text)
