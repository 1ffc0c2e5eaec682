"""A Qdrant server or cluster (``qdrant-client``) behind the protocol of engines, for what one machine cannot hold."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from qdrant_client import QdrantClient, models

from miner_diag.retrieval.tokens import TokenVectors
from miner_diag.serving.engine import (
    GRAPH_BUILD_WIDTH,
    GRAPH_LINKS,
    OVERSAMPLING,
    SEARCH_WIDTH,
    EngineError,
    EngineKind,
    Found,
    Payload,
    ServerOptions,
    Space,
    check_points,
    check_query,
    upload_blocks,
)

KEY_VARIABLE = "QDRANT_API_KEY"
"""Environment variable with the key of the server; it is written nowhere."""

NAME = "page"
"""What the server calls the vectors."""

OPTIMIZE_SECONDS = 3_600.0
"""How long `optimize` waits for the server."""

Result = TypeVar("Result")


def connect(url: str) -> QdrantClient:
    """Return a client of a server.

    Raises
    ------
    EngineError
        If the address is none.
    """
    try:
        return QdrantClient(url=url, api_key=os.environ.get(KEY_VARIABLE), timeout=60, check_compatibility=False)
    except ValueError as error:
        raise EngineError(f"qdrant_url must be an address, as http://localhost:6333; got {url!r} ({error})") from None


class ServerEngine:
    """The points of one collection.

    Parameters
    ----------
    client : QdrantClient
        Knows the server.
    collection : str
        The collection; it is made if it is not there.
    space : Space
        What the points have in common.
    options : ServerOptions
        How the collection is spread, if it has to be made.

    Raises
    ------
    EngineError
        If the server does not answer, or the collection holds points of another space.
    """

    kind: EngineKind = "qdrant-server"

    def __init__(self, client: QdrantClient, collection: str, space: Space, options: ServerOptions) -> None:
        self.space = space
        self._client, self._collection = client, collection
        try:
            if self._try(lambda: client.collection_exists(collection)):
                self._refuse_other_space()
            else:
                self._create(options)
        except EngineError:
            client.close()
            raise

    def upsert(
        self, ids: Sequence[str], vectors: np.ndarray | TokenVectors, payloads: Sequence[Payload] | None = None
    ) -> None:
        """Put points there."""
        check_points(self.space, ids, vectors, payloads)
        for block in upload_blocks(vectors):
            points = [
                models.PointStruct(
                    id=ids[row],
                    vector={NAME: (vectors.item(row) if isinstance(vectors, TokenVectors) else vectors[row]).tolist()},
                    payload=dict(payloads[row]) if payloads else None,
                )
                for row in block
            ]
            self._try(partial(self._client.upsert, self._collection, points, wait=True))

    def delete(self, ids: Sequence[str]) -> None:
        """Take points away."""
        if ids:
            chosen = models.PointIdsList(points=list(ids))
            self._try(lambda: self._client.delete(self._collection, chosen, wait=True))

    def ids(self) -> set[str]:
        """Return the ids of all points."""
        found: set[str] = set()
        offset: Any = None
        while True:
            points, offset = self._try(
                partial(
                    self._client.scroll,
                    self._collection,
                    limit=10_000,
                    offset=offset,
                    with_payload=False,
                    with_vectors=False,
                )
            )
            found.update(str(point.id) for point in points)
            if offset is None:
                return found

    def optimize(self) -> None:
        """Wait until the server has built the graph: it does so by itself.

        Raises
        ------
        EngineError
            If it is not done after `OPTIMIZE_SECONDS`.
        """
        until = time.monotonic() + OPTIMIZE_SECONDS
        while (info := self._info()).status != models.CollectionStatus.GREEN:
            if info.status == models.CollectionStatus.RED or time.monotonic() > until:
                raise EngineError(
                    f"collection {self._collection} has the status {info.status.value} ({info.optimizer_status}); look "
                    "at the server's log, then run the same command again"
                )
            time.sleep(0.5)

    def count(self) -> int:
        """Return the number of points."""
        return int(self._try(lambda: self._client.count(self._collection, exact=True)).count)

    def indexed_count(self) -> int:
        """Return how many vectors are in the graph, as the server says."""
        return int(self._info().indexed_vectors_count or 0)

    def search(self, query: np.ndarray, k: int, *, exact: bool = False) -> list[Found]:
        """Return the k best points."""
        query = check_query(self.space, query, k)
        quantization = None
        if self.space.quantization != "none":
            quantization = (
                models.QuantizationSearchParams(ignore=True)
                if exact
                else models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING[self.space.quantization])
            )
        params = models.SearchParams(hnsw_ef=SEARCH_WIDTH, exact=exact, quantization=quantization)
        found = self._try(
            lambda: self._client.query_points(
                self._collection, query=query.tolist(), using=NAME, limit=k, search_params=params, with_payload=True
            )
        )
        return [Found(str(point.id), float(point.score), dict(point.payload or {})) for point in found.points]

    def bytes_on_disk(self) -> None:
        """Return None: the files lie on another machine."""

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _create(self, options: ServerOptions) -> None:
        compressed: Any = {
            "none": None,
            "int8": models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
            ),
            "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
        }[self.space.quantization]
        vectors = models.VectorParams(
            size=self.space.width,
            distance=models.Distance.COSINE,
            on_disk=options.on_disk,
            datatype=models.Datatype(self.space.stored_as),
            multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
            if self.space.tokens
            else None,
        )
        self._try(
            lambda: self._client.create_collection(
                self._collection,
                {NAME: vectors},
                shard_number=options.shards,
                replication_factor=options.replicas,
                # without thresholds of one kilobyte, small collections would be searched point by point
                hnsw_config=models.HnswConfigDiff(
                    m=0 if self.space.tokens else GRAPH_LINKS, ef_construct=GRAPH_BUILD_WIDTH, full_scan_threshold=10
                ),
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1),
                quantization_config=compressed,
            )
        )

    def _refuse_other_space(self) -> None:
        """Raise EngineError if the collection holds points of another kind."""
        params = self._info().config.params.vectors
        held = params.get(NAME) if isinstance(params, dict) else None
        same = held is not None and (
            held.size == self.space.width and (held.multivector_config is not None) == self.space.tokens
        )
        if not same:
            raise EngineError(
                f"collection {self._collection} on the server holds points of another space, expected {self.space}; "
                "choose another --collection"
            )

    def _info(self) -> models.CollectionInfo:
        return self._try(lambda: self._client.get_collection(self._collection))

    def _try(self, do: Callable[[], Result]) -> Result:
        """Return what a call of the client returns; whatever goes wrong is said in a sentence."""
        try:
            return do()
        except EngineError:
            raise
        except Exception as error:  # of the client, of HTTP and of gRPC
            told = " ".join(str(error).split())[:500]
            raise EngineError(
                f"the Qdrant server does not do what it is asked ({told}); see that it runs and can be reached, then "
                "run the same command again"
            ) from None
