"""Our own exact search behind the protocol of engines: what serves where no engine is installed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from miner_diag.retrieval.maxsim import maxsim_scores
from miner_diag.retrieval.search import Hits, PreparedPages
from miner_diag.retrieval.tokens import TokenVectors
from miner_diag.sealed import DamagedError, read_tensors, write_tensors
from miner_diag.serving.engine import (
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
)

FILE = "vectors.safetensors"
"""All points, written by `optimize`."""


class ExactEngine:
    """Keeps all vectors in memory, scores every page, and writes them to one file.

    Parameters
    ----------
    folder : path
        Where the file lies.
    space : Space
        What the points have in common; nothing is compressed here.

    Raises
    ------
    EngineError
        If a quantization is asked for, or the file is of another space.
    BrokenEngineError
        If the file is damaged.
    """

    kind: EngineKind = "exact"

    def __init__(self, folder: Path, space: Space) -> None:
        if space.quantization != "none":
            raise EngineError(
                f"quantization {space.quantization} needs the engine qdrant-edge or qdrant-server; exact search keeps "
                "whole vectors"
            )
        self.space = space
        self._folder = folder
        self._points: dict[str, tuple[np.ndarray, Payload]] = {}
        self._prepared: tuple[list[str], PreparedPages | TokenVectors] | None = None
        if (folder / FILE).is_file():
            self._read()

    def upsert(
        self, ids: Sequence[str], vectors: np.ndarray | TokenVectors, payloads: Sequence[Payload] | None = None
    ) -> None:
        """Put points there."""
        check_points(self.space, ids, vectors, payloads)
        for row, point in enumerate(ids):
            vector = vectors.item(row) if isinstance(vectors, TokenVectors) else vectors[row]
            self._points[point] = np.array(vector, dtype=self.space.stored_as), payloads[row] if payloads else {}
        self._prepared = None

    def delete(self, ids: Sequence[str]) -> None:
        """Take points away."""
        for point in ids:
            self._points.pop(point, None)
        self._prepared = None

    def ids(self) -> set[str]:
        """Return the ids of all points."""
        return set(self._points)

    def optimize(self) -> None:
        """Write all points."""
        items = [vector.reshape(-1, self.space.width) for vector, _ in self._points.values()]
        stacked = np.concatenate(items) if items else np.zeros((0, self.space.width), self.space.stored_as)
        refuse_full_disk(self._folder, stacked.nbytes)
        facts = {
            "width": self.space.width,
            "stored_as": self.space.stored_as,
            "tokens": self.space.tokens,
            "ids": list(self._points),
            "payloads": [dict(payload) for _, payload in self._points.values()],
        }
        arrays = {"vectors": stacked, "lengths": np.array([len(item) for item in items], dtype=np.int64)}
        write_tensors(self._folder / FILE, arrays, {"facts": json.dumps(facts)})

    def count(self) -> int:
        """Return the number of points."""
        return len(self._points)

    def indexed_count(self) -> int:
        """Return the number of points: an exact search needs nothing else."""
        return len(self._points)

    def search(self, query: np.ndarray, k: int, *, exact: bool = False) -> list[Found]:
        """Return the k best points; every search is exact."""
        query = check_query(self.space, query, k)
        if not self._points:
            return []
        ids, vectors = self._ready()
        k = min(k, len(ids))
        if isinstance(vectors, TokenVectors):
            hits = Hits.of_scores(maxsim_scores(TokenVectors.from_items([query]), vectors), k)
        else:
            hits = vectors.top_k(query[None], k)
        return [
            Found(ids[page], float(score), dict(self._points[ids[page]][1]))
            for page, score in zip(hits.pages[0].tolist(), hits.scores[0], strict=True)
        ]

    def bytes_on_disk(self) -> int:
        """Return the blocks that the file takes."""
        return allocated_bytes(self._folder)

    def close(self) -> None:
        """Do nothing: no file is open."""

    def _ready(self) -> tuple[list[str], PreparedPages | TokenVectors]:
        """Return ids and vectors, put together once."""
        if self._prepared is None:
            vectors = [vector for vector, _ in self._points.values()]
            self._prepared = (
                list(self._points),
                TokenVectors.from_items(vectors) if self.space.tokens else PreparedPages(np.stack(vectors)),
            )
        return self._prepared

    def _read(self) -> None:
        path = self._folder / FILE
        try:
            noted, arrays = read_tensors(path)
            facts, vectors = json.loads(noted["facts"]), arrays["vectors"]
            ends = np.cumsum(arrays["lengths"])[:-1]
        except (DamagedError, KeyError, ValueError) as error:
            raise BrokenEngineError(f"{path} is damaged ({error})") from None
        found = Space(facts["width"], "none", facts["stored_as"], facts["tokens"])
        if found != self.space:
            raise EngineError(f"{path} holds points of {found}, expected {self.space}")
        for point, vector, payload in zip(
            facts["ids"], np.split(vectors, ends) if len(vectors) else [], facts["payloads"], strict=True
        ):
            self._points[point] = vector if self.space.tokens else vector[0], payload
