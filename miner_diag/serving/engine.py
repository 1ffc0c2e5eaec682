"""Where vectors are kept to be searched: one protocol, and the choice of the engine behind it.

An engine holds points: an id, a vector (or the vectors of all tokens), and a few facts about the page. It is derived
from what an index keeps itself, so it can be built again at any time.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from miner_diag.files import PlaceError, sha256_bytes
from miner_diag.retrieval.tokens import TokenVectors

Quantization = Literal["none", "int8", "binary"]
"""How vectors are compressed for a first look: not at all, a byte or a bit a coordinate; the best are scored again."""

StoredAs = Literal["float32", "float16"]
"""The precision of the vectors that an engine keeps."""

EngineKind = Literal["qdrant-edge", "qdrant-server", "exact"]
"""Qdrant inside this process, a Qdrant server or cluster, or our own exact search."""

Payload = Mapping[str, Any]
"""Facts about a point, as JSON holds them."""

EXTRA = "pip install 'miner-diag[serving]'"
"""What installs the engines."""

OVERSAMPLING: dict[Quantization, float] = {"none": 1.0, "int8": 2.0, "binary": 3.0}
"""For each point that is asked for, so many are taken by compressed vectors, and scored again by the whole ones."""

SEARCH_WIDTH = 128
"""How many candidates a walk through the graph keeps (Qdrant's hnsw_ef); more are slower and miss fewer."""

GRAPH_LINKS, GRAPH_BUILD_WIDTH = 16, 100
"""Links of a point, and candidates while the graph is built (m and ef_construct); Qdrant's defaults."""

UPLOAD_NUMBERS = 400_000
"""Coordinates that are handed to an engine at once, as Python's numbers: some 13 MB."""

_SLACK_BYTES = 16_000_000
_COPIES = 3  # an engine writes a segment anew, with its graph, beside the old one


class EngineError(ValueError):
    """Points that an engine cannot take, or an engine that cannot do what it is asked; the message says what to do."""


class BrokenEngineError(EngineError):
    """Files of an engine that it cannot read; what they held can be built again."""


@dataclass(frozen=True)
class Space:
    """What all points of an engine have in common."""

    width: int
    """D, the width of a vector."""
    quantization: Quantization = "none"
    """How vectors are compressed for a first look."""
    stored_as: StoredAs = "float32"
    """The precision of the vectors that are kept."""
    tokens: bool = False
    """Whether a point has a vector for every token, compared by MaxSim. Then every point is scored, without a graph."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.width < 1:
            raise EngineError(f"width must be at least 1; got {self.width}")
        for name, value, known in (
            ("quantization", self.quantization, get_args(Quantization)),
            ("stored_as", self.stored_as, get_args(StoredAs)),
        ):
            if value not in known:
                raise EngineError(f"{name} must be one of {', '.join(known)}; got {value!r}")


@dataclass(frozen=True)
class Found:
    """A point that was found."""

    point_id: str
    """Its id."""
    score: float
    """Its cosine, or the sum of its cosines under MaxSim."""
    payload: dict[str, Any]
    """What is known of it."""


class Engine(Protocol):
    """What every engine does. Ids are UUIDs as text; a point that is sent twice is there once."""

    kind: EngineKind
    """Which engine it is."""
    space: Space
    """What its points have in common."""

    def upsert(
        self, ids: Sequence[str], vectors: np.ndarray | TokenVectors, payloads: Sequence[Payload] | None = None
    ) -> None:
        """Put points there, or put others in the place of those that have the same id; see :func:`check_points`."""
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Take points away; ids that are not there are passed over."""
        ...

    def ids(self) -> set[str]:
        """Return the ids of all points."""
        ...

    def optimize(self) -> None:
        """Build what makes search fast, wait until that is done, and write everything to disk."""
        ...

    def count(self) -> int:
        """Return the number of points."""
        ...

    def indexed_count(self) -> int:
        """Return how many vectors are in what makes search fast; what is not there is searched one by one."""
        ...

    def search(self, query: np.ndarray, k: int, *, exact: bool = False) -> list[Found]:
        """Return the k best points of a query [D], or [T, D] under MaxSim, the best first; fewer if there are fewer.

        An exact search scores every point by its whole vector.
        """
        ...

    def bytes_on_disk(self) -> int | None:
        """Return the blocks that its files take; None where they lie on another machine."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


@dataclass(frozen=True)
class ServerOptions:
    """A Qdrant server or cluster that holds the points instead of this machine."""

    qdrant_url: str | None = None
    """The address of a Qdrant server or cluster, as http://localhost:6333. Its key is taken from the environment
    variable QDRANT_API_KEY. Without it the points lie in the index's folder."""
    collection: str = "miner-diag"
    """The start of the names of the collections on the server."""
    shards: int = 1
    """The number of parts that the server cuts a collection into."""
    replicas: int = 1
    """The number of machines that hold each part."""
    on_disk: bool = False
    """Keep whole vectors on the server's disk, not in its memory; with a quantization the compressed ones stay in
    memory."""

    def __post_init__(self) -> None:
        """Refuse what has no effect or cannot be."""
        if self.shards < 1 or self.replicas < 1:
            raise EngineError(f"shards and replicas must be at least 1; got {self.shards} and {self.replicas}")
        given = any(getattr(self, item.name) != item.default for item in fields(self))
        if self.qdrant_url is None and given:
            raise EngineError(
                "--collection, --shards, --replicas and --on-disk have no effect without --qdrant-url: the points lie "
                "in the index's folder then. Leave them out"
            )


def default_kind(server: ServerOptions | None = None) -> EngineKind:
    """Return the engine that is taken where nobody says which: the server, the embedded one, or exact search."""
    if server is not None and server.qdrant_url is not None:
        return "qdrant-server"
    return "qdrant-edge" if importlib.util.find_spec("qdrant_edge") else "exact"


def open_engine(
    kind: EngineKind, folder: Path, space: Space, *, server: ServerOptions | None = None, name: str = ""
) -> Engine:
    """Open the engine in a folder, or make it.

    Parameters
    ----------
    kind : str
        Which engine.
    folder : path
        Where its files lie; not used by a server.
    space : Space
        What its points have in common.
    server : ServerOptions, optional
        The server.
    name : str
        The end of the collection's name on the server.

    Raises
    ------
    EngineError
        If the engine is not installed, the server cannot be reached, or what is there is of another space.
    BrokenEngineError
        If the files cannot be read.
    """
    if kind == "exact":
        from miner_diag.serving.exact_engine import ExactEngine

        return ExactEngine(folder, space)
    module = {"qdrant-edge": "qdrant_edge", "qdrant-server": "qdrant_client"}[kind]
    if importlib.util.find_spec(module) is None:
        raise EngineError(f"the engine {kind} needs the package {module.replace('_', '-')}; {EXTRA}")
    if kind == "qdrant-edge":
        from miner_diag.serving.qdrant_edge_engine import EdgeEngine

        return EdgeEngine(folder, space)
    from miner_diag.serving.qdrant_server_engine import ServerEngine, connect

    assert server is not None and server.qdrant_url is not None  # as default_kind and an index see to
    return ServerEngine(connect(server.qdrant_url), f"{server.collection}-{name}", space, server)


def check_points(
    space: Space,
    ids: Sequence[str],
    vectors: np.ndarray | TokenVectors,
    payloads: Sequence[Payload] | None,
) -> None:
    """Check that points can be put into a space.

    Raises
    ------
    EngineError
        If ids, vectors and payloads are not of one number, an id is no UUID or stands twice, the width is another one,
        or a vector is zero or holds NaN or an infinity, which an engine would take without a word; the point is named.
    """
    if isinstance(vectors, TokenVectors) != space.tokens:
        wanted, came = "the vectors of all tokens", "one vector a point"
        raise EngineError(
            f"vectors must be {wanted if space.tokens else came} here; got {came if space.tokens else wanted}"
        )
    rows = vectors.vectors if isinstance(vectors, TokenVectors) else np.asarray(vectors)
    if rows.ndim != 2 or rows.shape[1] != space.width:
        raise EngineError(f"vectors must have the width {space.width}; got {list(rows.shape)}")
    if len(ids) != len(vectors) or (payloads is not None and len(payloads) != len(ids)):
        counts = f"{len(ids)} ids, {len(vectors)} vectors" + (
            "" if payloads is None else f" and {len(payloads)} payloads"
        )
        raise EngineError(f"each point needs an id, a vector and, if any has one, a payload; got {counts}")
    if len(set(ids)) < len(ids):
        twice = next(point for row, point in enumerate(ids) if point in ids[:row])
        raise EngineError(f"ids must name each point once; {twice} stands twice")
    for point in ids:
        try:
            usual = str(uuid.UUID(point))
        except (ValueError, AttributeError, TypeError):
            usual = ""
        if point != usual:
            raise EngineError(f"ids must be UUIDs in small letters with hyphens; got {point!r}")
    usable = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
    if not usable.all():
        row = int(np.argmin(usable))
        point = (
            ids[int(np.searchsorted(vectors.offsets, row, side="right")) - 1]
            if isinstance(vectors, TokenVectors)
            else ids[row]
        )
        what = "is zero, which has no cosine" if np.isfinite(rows[row]).all() else "holds NaN or an infinity"
        raise EngineError(f"the vector of {point} {what}; leave the item out or find out why it was embedded so")


def upload_blocks(vectors: np.ndarray | TokenVectors) -> Iterator[range]:
    """Yield the rows of points that are handed over together: at least one, and as many as `UPLOAD_NUMBERS` allow."""
    if isinstance(vectors, TokenVectors):
        sizes = vectors.lengths * vectors.width
    else:
        sizes = np.full(len(vectors), vectors.shape[1])
    first, total = 0, 0
    for row, size in enumerate(sizes.tolist()):
        if row > first and total + size > UPLOAD_NUMBERS:
            yield range(first, row)
            first, total = row, 0
        total += size
    if len(sizes):
        yield range(first, len(sizes))


def check_query(space: Space, query: np.ndarray, k: int) -> np.ndarray:
    """Return a query as float32 [D], or [T, D] where points have a vector for every token.

    Raises
    ------
    EngineError
        If its shape or width is another one, it is zero or not finite, or k is below 1.
    """
    query = np.asarray(query, dtype=np.float32)
    expected = ["tokens", space.width] if space.tokens else [space.width]
    if query.ndim != len(expected) or not query.size or query.shape[-1] != space.width:
        raise EngineError(
            f"query must be [{', '.join(map(str, expected))}]; got {list(query.shape)}. Is it of the same model?"
        )
    if not np.isfinite(query).all() or not query.any(axis=-1).all():
        raise EngineError("query is zero or holds NaN or an infinity, so it has no cosine")
    if k < 1:
        raise EngineError(f"k must be at least 1; got {k}")
    return query


def point_id(*parts: object) -> str:
    """Return the id of a point, the same whenever it is asked for the same parts.

    Examples
    --------
    >>> point_id("a document", 3) == point_id("a document", 3) != point_id("a document", 4)
    True
    """
    return str(uuid.UUID(sha256_bytes("\n".join(map(str, parts)).encode("utf-8", "surrogatepass"))[:32]))


def allocated_bytes(folder: Path) -> int:
    """Return the bytes of the blocks that files below a folder take; an engine's files are longer than that."""
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(here, name))
            total += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
    return total


def refuse_full_disk(folder: Path, n_bytes: int) -> None:
    """Raise PlaceError unless so many bytes of vectors can be written below a folder with room to spare.

    An engine maps its files into memory: where the disk is full, the system ends the process without a word.
    """
    there = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    if shutil.disk_usage(there).free < _COPIES * n_bytes + _SLACK_BYTES:
        raise PlaceError(folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
