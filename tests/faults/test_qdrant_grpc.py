"""Qdrant over gRPC: what arrives at a server of its own stubs, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from qdrant_client import grpc as api
from qdrant_client.conversions.conversion import GrpcToRest

import nestvec
from nestvec import BackendError, F, Unavailable
from nestvec.backends.base import Head
from nestvec.backends.qdrant import QdrantBackend, QdrantOptions
from nestvec.collection import Collection

from ..vectors import nested_vectors, records

KEY = "s3cret-key-0123456789"

#: Where these collections are; they are neither copied nor sent to another process.
PLACE: Any = None
ROWS = nested_vectors(30, 8)


class Points(api.PointsServicer):
    """Keeps what is written, and fails first where it is told to."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.faults: list[tuple[grpc.StatusCode, str | None]] = []
        self.queries: list[Any] = []
        self.keys: set[Any] = set()

    def _meet(self, context: grpc.ServicerContext) -> None:
        self.keys.add(dict(context.invocation_metadata()).get("api-key"))
        if self.faults:
            code, wait = self.faults.pop(0)
            if wait is not None:
                context.set_trailing_metadata((("retry-after", wait),))
            context.abort(code, "the reason")

    def Upsert(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._meet(context)
        assert request.wait
        for point in request.points:
            made = GrpcToRest.convert_point_struct(point)
            self.kept[str(made.id)] = made
        return api.PointsOperationResponse(
            result=api.UpdateResult(status=api.UpdateStatus.Completed)
        )

    def Count(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._meet(context)
        return api.CountResponse(result=api.CountResult(count=len(self.kept)))

    def Query(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._meet(context)
        self.queries.append(request)
        return api.QueryResponse(result=[])


@pytest.fixture
def server() -> Iterator[tuple[Points, int]]:
    points = Points()
    served = grpc.server(ThreadPoolExecutor(4))
    api.add_PointsServicer_to_server(points, served)  # type: ignore[no-untyped-call]
    port = served.add_insecure_port("127.0.0.1:0")
    served.start()
    yield points, port
    served.stop(None).wait()


def collection(port: int, **options: Any) -> Collection:
    """Return an open collection; nobody made it, for only points are served."""
    settings = QdrantOptions(prefer_grpc=True, grpc_port=port, api_key=KEY, **options)
    backend = QdrantBackend("http://127.0.0.1:6333", "docs", settings)
    backend._write_as(nestvec.Nesting.of((2, 4), 8))
    return Collection(backend, Head(nestvec.Nesting.of((2, 4), 8)), None, 512)


FAULTS = [
    (grpc.StatusCode.UNAVAILABLE, None),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "1"),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, None),
    (grpc.StatusCode.DEADLINE_EXCEEDED, None),
]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []

    async def asleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr("nestvec.backends.qdrant_driver.time.sleep", asked.append)
    monkeypatch.setattr("nestvec.backends.qdrant_driver.asyncio.sleep", asleep)
    return asked


def check(points: Points) -> None:
    assert {made.payload["id"] for made in points.kept.values()} == {str(n) for n in range(30)}
    for made in points.kept.values():
        assert {name: len(vector) for name, vector in made.vector.items()} == {
            "full": 8, "d4": 4, "d2": 2,
        }  # fmt: skip
        n = made.payload["metadata"]["n"]
        assert type(n) is int
        assert made.payload["metadata"] == {"n": n, "even": n % 2 == 0, "tag": f"t{n % 7}"}
    assert points.keys == {KEY}
    query, again = points.queries  # nothing was found of 30 documents: an exact pass
    assert again.prefetch[0].prefetch[0].params.exact
    assert not query.prefetch[0].prefetch[0].params.exact
    assert query.limit == 5
    assert query.prefetch[0].prefetch[0].limit == 20
    assert query.prefetch[0].prefetch[0].filter.must


def test_documents_and_a_query_arrive(server: tuple[Points, int], pauses: list[float]) -> None:
    points, port = server
    points.faults += FAULTS
    with nestvec.Store(collection(port), PLACE) as store:
        assert len(store.add_records(records(ROWS))) == 30
        assert store.count() == 30
        assert store.search(ROWS[0], k=5, funnel="2:20 4:10", where=F("n") >= 3) == []
    check(points)
    assert len(pauses) == len(FAULTS)


def test_they_arrive_from_tasks_too(server: tuple[Points, int], pauses: list[float]) -> None:
    points, port = server

    async def main() -> None:
        points.faults += FAULTS
        async with nestvec.AsyncStore(collection(port), PLACE) as store:
            assert len(await store.add_records(records(ROWS))) == 30
            assert await store.count() == 30
            assert await store.search(ROWS[0], k=5, funnel="2:20 4:10", where=F("n") >= 3) == []

    asyncio.run(main())
    check(points)
    assert len(pauses) == len(FAULTS)


def test_each_event_loop_has_a_client_of_its_own(server: tuple[Points, int]) -> None:
    points, port = server
    store = nestvec.AsyncStore(collection(port), PLACE)
    for _ in range(2):
        assert asyncio.run(store.search(ROWS[0])) == []
    asyncio.run(store.close())
    assert len(points.queries) == 2


def test_what_stays_is_unavailable_and_what_is_wrong_is_not_tried_again(
    server: tuple[Points, int], pauses: list[float]
) -> None:
    points, port = server
    with nestvec.Store(collection(port, retries=1), PLACE) as store:
        points.faults += [(grpc.StatusCode.UNAVAILABLE, None)] * 2
        with pytest.raises(Unavailable, match=r"answered UNAVAILABLE: the reason \(tried 2 times"):
            store.count()
        points.faults.append((grpc.StatusCode.INVALID_ARGUMENT, None))
        with pytest.raises(BackendError, match="answered INVALID_ARGUMENT: the reason") as caught:
            store.count()
        assert not isinstance(caught.value, Unavailable)
        assert KEY not in repr(caught.value) + repr(caught.value.__cause__)
    assert len(pauses) == 1
