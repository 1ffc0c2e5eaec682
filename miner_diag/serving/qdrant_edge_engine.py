"""Qdrant inside this process (``qdrant-edge-py``) behind the protocol of engines; its authors call it beta.

Its log of writes is switched off: it takes as much room as the vectors, and an index sends again what was not finished.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import qdrant_edge as edge

from miner_diag.files import write_atomic
from miner_diag.retrieval.tokens import TokenVectors
from miner_diag.sealed import SEAL, DamagedError, read_sealed, sealed
from miner_diag.serving.engine import (
    GRAPH_BUILD_WIDTH,
    GRAPH_LINKS,
    OVERSAMPLING,
    SEARCH_WIDTH,
    BrokenEngineError,
    EngineError,
    EngineKind,
    Found,
    Payload,
    Space,
    allocated_bytes,
    check_points,
    check_query,
    refuse_full_disk,
    upload_blocks,
)

NAME = "page"
"""What the engine calls the vectors."""

SPACE, SHARD, CONFIG = "space.json", "shard", "edge_config.json"
"""What the points have in common, the engine's own folder, and the file in it that it writes first."""

Result = TypeVar("Result")


class EdgeEngine:
    """Points in a folder, searched by Qdrant's own code in this process.

    Parameters
    ----------
    folder : path
        Where its files lie. No other process may use them: the engine itself does not see to that.
    space : Space
        What the points have in common.

    Raises
    ------
    EngineError
        If the folder holds points of another space.
    BrokenEngineError
        If its files cannot be read.
    """

    kind: EngineKind = "qdrant-edge"

    def __init__(self, folder: Path, space: Space) -> None:
        self.space = space
        self._folder = folder / SHARD
        if (self._folder / CONFIG).is_file():
            _refuse_other_space(folder, space)
            try:
                self._shard = edge.EdgeShard.load(str(self._folder))
            except Exception as error:  # the engine has no errors of its own
                raise BrokenEngineError(f"the engine cannot read its files in {self._folder} ({error})") from None
        else:
            write_atomic(folder / SPACE, json.dumps(sealed(asdict(space)), indent=2) + "\n")
            self._folder.mkdir(parents=True, exist_ok=True)
            self._shard = self._try("made", lambda: edge.EdgeShard.create(str(self._folder), self._config()))

    def upsert(
        self, ids: Sequence[str], vectors: np.ndarray | TokenVectors, payloads: Sequence[Payload] | None = None
    ) -> None:
        """Put points there."""
        check_points(self.space, ids, vectors, payloads)
        rows = vectors.vectors if isinstance(vectors, TokenVectors) else vectors
        refuse_full_disk(self._folder, 4 * rows.size)
        for block in upload_blocks(vectors):
            points = [
                edge.Point(
                    ids[row],
                    {NAME: (vectors.item(row) if isinstance(vectors, TokenVectors) else vectors[row]).tolist()},
                    dict(payloads[row]) if payloads else None,
                )
                for row in block
            ]
            self._update(edge.UpdateOperation.upsert_points(points))

    def delete(self, ids: Sequence[str]) -> None:
        """Take points away."""
        if ids:
            self._update(edge.UpdateOperation.delete_points(list(ids)))

    def ids(self) -> set[str]:
        """Return the ids of all points."""
        found: set[str] = set()
        offset: Any = None
        while True:
            request = edge.ScrollRequest(offset=offset, limit=10_000, with_payload=False, with_vector=False)
            points, offset = self._try("read", partial(self._shard.scroll, request))
            found.update(str(point.id) for point in points)
            if offset is None:
                return found

    def optimize(self) -> None:
        """Build the graph and write everything to disk."""
        refuse_full_disk(self._folder, 4 * self.space.width * self.count())
        self._try("optimized", self._shard.optimize)
        self._try("written", self._shard.flush)

    def count(self) -> int:
        """Return the number of points."""
        return int(self._try("read", lambda: self._shard.count(edge.CountRequest(exact=True))))

    def indexed_count(self) -> int:
        """Return how many vectors are in the graph, as the engine says."""
        return int(self._try("read", self._shard.info).indexed_vectors_count)

    def search(self, query: np.ndarray, k: int, *, exact: bool = False) -> list[Found]:
        """Return the k best points."""
        query = check_query(self.space, query, k)
        quantization = None
        if self.space.quantization != "none":
            quantization = (
                edge.QuantizationSearchParams(ignore=True)
                if exact
                else edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING[self.space.quantization])
            )
        request = edge.QueryRequest(
            limit=k,
            query=edge.Query.Nearest(query.tolist(), using=NAME),
            params=edge.SearchParams(hnsw_ef=SEARCH_WIDTH, exact=exact, quantization=quantization),
            with_payload=True,
        )
        found = self._try("searched", lambda: self._shard.query(request))
        return [Found(str(point.id), float(point.score), dict(point.payload or {})) for point in found]

    def bytes_on_disk(self) -> int:
        """Return the blocks that its files take: they are larger than what they hold."""
        return allocated_bytes(self._folder)

    def close(self) -> None:
        """Write everything and let go of the files."""
        self._try("written", self._shard.flush)
        self._try("closed", self._shard.close)

    def _config(self) -> edge.EdgeConfig:
        compressed: Any = {
            "none": None,
            "int8": edge.ScalarQuantizationConfig(edge.ScalarType.Int8, memory=edge.Memory.Pinned),
            "binary": edge.BinaryQuantizationConfig(memory=edge.Memory.Pinned),
        }[self.space.quantization]
        stored_as = {
            "float32": edge.VectorStorageDatatype.Float32,
            "float16": edge.VectorStorageDatatype.Float16,
        }[self.space.stored_as]
        links = 0 if self.space.tokens else GRAPH_LINKS
        vectors = edge.EdgeVectorParams(
            self.space.width,
            edge.Distance.Cosine,
            multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if self.space.tokens else None,
            datatype=stored_as,
        )
        return edge.EdgeConfig(
            vectors={NAME: vectors},
            # without thresholds of one kilobyte, small collections would be searched point by point
            hnsw_config=edge.HnswIndexConfig(links, GRAPH_BUILD_WIDTH, 1),
            quantization_config=compressed,
            optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1),
            wal_enabled=False,
        )

    def _update(self, operation: edge.UpdateOperation) -> None:
        self._try("written", lambda: self._shard.update(operation))

    def _try(self, verb: str, do: Callable[[], Result]) -> Result:
        """Return what a call of the engine returns; its errors are bare exceptions."""
        try:
            return do()
        except Exception as error:
            way_out = "free space there" if "No space left" in str(error) else "run the same command again"
            raise EngineError(f"the engine in {self._folder} cannot be {verb} ({error}); {way_out}") from None


def _refuse_other_space(folder: Path, space: Space) -> None:
    """Raise EngineError if a folder holds points of another kind, BrokenEngineError if it does not say of which."""
    try:
        held = read_sealed(folder / SPACE)
        held.pop(SEAL)
        found = Space(**held)
    except (DamagedError, OSError, TypeError) as error:
        raise BrokenEngineError(f"{folder / SPACE} cannot be read ({error})") from None
    if found != space:
        raise EngineError(f"{folder} holds points of {found}, expected {space}")
