"""The gRPC side of the stand-in for a Qdrant server, over the collections of its REST side.

Every message goes through qdrant-client's own conversions to the models of the REST API and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from typing import Any

import grpc  # type: ignore[import-untyped]
from qdrant_client import grpc as api
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from .qdrant_engine import Engine, EngineError
from .rest_server import RestServer

Answer = Callable[[Any, Engine, Any], Any]

_CODES = {404: grpc.StatusCode.NOT_FOUND, 409: grpc.StatusCode.ALREADY_EXISTS}


def answered(answer: Answer) -> Callable[[Any, Any, grpc.ServicerContext], Any]:
    """Return the method of a servicer that answers one request at a time."""

    @wraps(answer)
    def method(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        assert not list(_empty(request)), f"an empty message in {request}"
        told = None
        fault = self.server.next_fault(f"grpc {answer.__name__}")
        if fault is not None and fault.kind == "hang":
            self.server.ended.wait(fault.seconds)
        try:
            with self.server.turn:
                told = answer(self, self.server.engine, request)
            if fault is not None and fault.kind == "answer":
                context.abort(grpc.StatusCode.INTERNAL, "the reason")
        except EngineError as error:
            context.abort(_CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT), str(error))
        except Exception as error:
            if context.code() is not None:
                raise  # the fault's
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Wrong input: {error}")
        return told

    return method


def _empty(message: Any) -> Iterator[Any]:
    """Yield the messages that say nothing, which a cluster would wait for; payloads may.

    An empty filter is everything, an empty vector one that gRPC leaves out.
    """
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in [value] if hasattr(value, "ListFields") else value:
            if not each.ByteSize() and field.message_type.name not in _MAY_BE_EMPTY:
                yield each
            yield from _empty(each)


_MAY_BE_EMPTY = ("Filter", "Vectors", "PointId", "ReadConsistency", "WithPayloadSelector")


def optional(message: Any, field: str, convert: Callable[[Any], Any]) -> Any:
    """Return a field as a model, None where it is not there."""
    return convert(getattr(message, field)) if message.HasField(field) else None


def done() -> Any:
    result = api.UpdateResult(operation_id=0, status=api.UpdateStatus.Completed)
    return api.PointsOperationResponse(result=result)


class Collections(api.CollectionsServicer):
    """Collections are made, told of and deleted."""

    def __init__(self, server: RestServer) -> None:
        self.server = server

    @answered
    def CollectionExists(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        exists = request.collection_name in engine.collections
        return api.CollectionExistsResponse(result=api.CollectionExists(exists=exists))

    @answered
    def Create(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        body = models.CreateCollection(
            vectors=GrpcToRest.convert_vectors_config(request.vectors_config),
            metadata=GrpcToRest.convert_payload(request.metadata),
            shard_number=optional(request, "shard_number", int),
            replication_factor=optional(request, "replication_factor", int),
            write_consistency_factor=optional(request, "write_consistency_factor", int),
        )
        made = engine.create(request.collection_name, body)
        return api.CollectionOperationResponse(result=made)

    @answered
    def Update(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        metadata = GrpcToRest.convert_payload(request.metadata)
        engine[request.collection_name].metadata.update(metadata)
        return api.CollectionOperationResponse(result=True)

    @answered
    def Delete(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        return api.CollectionOperationResponse(result=engine.drop(request.collection_name))

    @answered
    def Get(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        told = models.CollectionInfo.model_validate(engine[request.collection_name].info())
        return api.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(told))


class Points(api.PointsServicer):
    """Points are written, read, searched and deleted, and vectors by their name."""

    def __init__(self, server: RestServer) -> None:
        self.server = server

    @answered
    def Upsert(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        assert request.wait
        points = map(GrpcToRest.convert_point_struct, request.points)
        engine[request.collection_name].upsert((p.id, p.vector, p.payload) for p in points)
        return done()

    @answered
    def Delete(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        assert request.wait
        engine[request.collection_name].delete(GrpcToRest.convert_points_selector(request.points))
        return done()

    @answered
    def UpdateVectors(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        assert request.wait
        points = map(GrpcToRest.convert_point_vectors, request.points)
        engine[request.collection_name].update_vectors(points)
        return done()

    @answered
    def CreateVectorName(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        assert request.wait
        made = request.dense_config
        dense = models.DenseVectorConfig(
            size=made.size,
            distance=GrpcToRest.convert_distance(made.distance),
            datatype=optional(made, "datatype", GrpcToRest.convert_datatype),
        )
        engine[request.collection_name].new_vector(request.vector_name, dense)
        return done()

    @answered
    def DeleteVectorName(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        engine[request.collection_name].delete_vector(request.vector_name)
        return done()

    @answered
    def CreateFieldIndex(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        name = api.FieldType.Name(request.field_type).removeprefix("FieldType").lower()
        kind: Any = models.PayloadSchemaType(name)
        if request.HasField("field_index_params"):
            kind = GrpcToRest.convert_payload_schema_params(request.field_index_params)
        engine[request.collection_name].index(request.field_name, kind)
        return done()

    @answered
    def Get(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        found = engine[request.collection_name].retrieve(
            map(GrpcToRest.convert_point_id, request.ids),
            GrpcToRest.convert_with_payload_interface(request.with_payload),
            optional(request, "with_vectors", GrpcToRest.convert_with_vectors_selector),
        )
        return api.GetResponse(result=map(_record, found))

    @answered
    def Scroll(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        body = models.ScrollRequest(
            filter=optional(request, "filter", GrpcToRest.convert_filter),
            offset=optional(request, "offset", GrpcToRest.convert_point_id),
            limit=request.limit,
            with_payload=GrpcToRest.convert_with_payload_interface(request.with_payload),
            with_vector=optional(request, "with_vectors", GrpcToRest.convert_with_vectors_selector),
        )
        found = engine[request.collection_name].scroll(body)
        after = found["next_page_offset"]
        return api.ScrollResponse(
            result=map(_record, found["points"]),
            next_page_offset=None if after is None else RestToGrpc.convert_extended_point_id(after),
        )

    @answered
    def Count(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        assert request.exact
        condition = optional(request, "filter", GrpcToRest.convert_filter)
        counted = engine[request.collection_name].count(condition)
        return api.CountResponse(result=api.CountResult(count=counted))

    @answered
    def Query(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        return api.QueryResponse(result=_queried(engine, request))

    @answered
    def QueryBatch(self, engine: Engine, request: Any) -> Any:  # noqa: N802
        results = [api.BatchResult(result=_queried(engine, each)) for each in request.query_points]
        return api.QueryBatchResponse(result=results)


class Root(api.QdrantServicer):
    """The version."""

    def __init__(self, server: RestServer) -> None:
        self.server = server

    def HealthCheck(self, request: Any, context: Any) -> Any:  # noqa: N802
        return api.HealthCheckReply(title="qdrant", version=self.server.version)


def _record(told: dict[str, Any]) -> Any:
    return RestToGrpc.convert_record(models.Record.model_validate(told))


def _queried(engine: Engine, request: Any) -> Iterator[Any]:
    body = GrpcToRest.convert_query_points(request)
    for told in engine[request.collection_name].query(body)["points"]:
        yield RestToGrpc.convert_scored_point(models.ScoredPoint.model_validate(told))


@contextmanager
def beside(server: RestServer) -> Iterator[int]:
    """Serve the collections of a server over gRPC too; yields the port."""
    served = grpc.server(ThreadPoolExecutor(8))
    api.add_CollectionsServicer_to_server(Collections(server), served)  # type: ignore[no-untyped-call]
    api.add_PointsServicer_to_server(Points(server), served)  # type: ignore[no-untyped-call]
    api.add_QdrantServicer_to_server(Root(server), served)  # type: ignore[no-untyped-call]
    port = served.add_insecure_port("127.0.0.1:0")
    served.start()
    try:
        yield port
    finally:
        served.stop(None).wait()
