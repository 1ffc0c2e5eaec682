"""What it costs to serve vectors: bytes, time to build, time to search and to encode, each beside the backbone's.

Every system and every form of its vectors gets an index of its own on the embedded engine. Nothing is timed before the
engine says that all vectors are in its graph: collections that are scanned would look fast while they are small.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from tqdm import tqdm

from miner_diag.retrieval.ndcg import ndcg_with_ties
from miner_diag.retrieval.relevance import Relevance
from miner_diag.retrieval.tokens import TokenVectors
from miner_diag.serving.engine import EXTRA, Engine, Found, Quantization, Space, StoredAs, default_kind, open_engine
from miner_diag.serving.errors import ServingError

Item = TypeVar("Item")

ISSUED = (
    "system",
    "representation",
    "dtype",
    "vectors_per_page",
    "width",
    "bytes_per_page_raw",
    "bytes_on_disk",
    "build_seconds",
    "search_p50_ms",
    "search_p95_ms",
    "qps",
    "recall_at_10_vs_exact",
    "ndcg_at_5",
    "encode_query_p50_ms",
    "encode_page_p50_ms",
)
"""What ``cost.csv`` says of a system."""

RATIOS = {
    "bytes_per_page_to_backbone": "bytes_per_page_raw",
    "bytes_on_disk_to_backbone": "bytes_on_disk",
    "search_p50_to_backbone": "search_p50_ms",
    "qps_to_backbone": "qps",
    "encode_query_to_backbone": "encode_query_p50_ms",
    "encode_page_to_backbone": "encode_page_p50_ms",
}
"""Ratio -> what is divided by the backbone's: whole float32 vectors of the same pages, searched in the same way."""

COLUMNS = (*ISSUED, *RATIOS, "n_pages", "search", "qps_end_to_end", "data", "label")
"""Columns of ``cost.csv``."""

MEASURED, SYNTHETIC = "measured", "measured, synthetic: the larger part of the pages are jittered copies"
"""How rows are labelled that were measured here."""

DEPTH = 10
"""The number of pages that are asked for."""
WARM_UP = 20
"""Searches before the first that counts."""
ROUNDS = 3
"""How often searches are timed: other work on the machine only slows, so the fastest round is nearest the truth."""
ASKED = 50
"""The largest number of texts from which to pages is timed: most of it is encoding, which is timed by itself."""
JITTER = 0.3
"""Length of the noise that makes a copy of a page's vector, which has length one, another vector."""
RESCORED: Mapping[Quantization, float] = {"none": 4.0, "int8": 1.0, "binary": 1 / 8}
"""Bytes of a coordinate that is looked at first."""


@dataclass(frozen=True)
class Representation:
    """In which form the vectors of a system are kept."""

    name: str
    """What the table calls it."""
    share: int = 1
    """The first D / share coordinates are kept."""
    quantization: Quantization = "none"
    """How the engine compresses them."""

    @property
    def dtype(self) -> str:
        """What the table calls the precision."""
        return "float32" if self.quantization == "none" else f"{self.quantization}, rescored"


WHOLE = tuple(Representation("whole", 1, quantization) for quantization in ("none", "int8", "binary"))
"""All coordinates, at three precisions."""
TRUNCATED = (Representation("first half", 2), Representation("first quarter", 4))
"""Fewer coordinates."""


@dataclass(frozen=True, eq=False)
class ServedVectors:
    """A system with its vectors of one set of queries and pages."""

    system: str
    """What the table calls it."""
    queries: np.ndarray | TokenVectors
    """[Q, D] float32, or the tokens of Q queries."""
    pages: np.ndarray | TokenVectors
    """[P, D] float32, or the tokens of P pages."""
    encode_query: Callable[[str], np.ndarray]
    """Gives the vector of a text, tokenisation included."""
    encode_page: Callable[[int], object]
    """Embeds page number i of the data alone."""
    encode_ms: dict[str, list[float]] = field(default_factory=lambda: {"query": [], "page": []})
    """What single queries and pages took; filled by :func:`time_encoding`."""
    encode_ratios: dict[str, float] = field(default_factory=dict)
    """The same to the first system: medians over items of the ratio at one item; filled by :func:`time_encoding`."""

    @property
    def width(self) -> int:
        """D."""
        return self.pages.width if isinstance(self.pages, TokenVectors) else self.pages.shape[1]


def time_encoding(systems: Sequence[ServedVectors], texts: Sequence[str], pages: Sequence[int]) -> None:
    """Take the times of encoding one query and one page, system after system in a turning order, after a warm-up.

    A machine that becomes slower in the middle slows all of them alike, and a ratio is taken at one item.
    """
    for system in systems:
        for text in texts[:WARM_UP]:
            system.encode_query(text)
        system.encode_page(pages[0])
    with tqdm(total=len(texts) + len(pages), desc="encoding", unit="item", delay=2.0) as bar:
        for number, text in enumerate(texts):
            for system in _turned(systems, number):
                system.encode_ms["query"].append(_ms(partial(system.encode_query, text)))
            bar.update()
        for number, page in enumerate(pages):
            for system in _turned(systems, number):
                system.encode_ms["page"].append(_ms(partial(system.encode_page, page)))
            bar.update()
    for system in systems:
        for side, times in system.encode_ms.items():
            ratios = np.divide(times, systems[0].encode_ms[side])
            system.encode_ratios[f"encode_{side}_to_backbone"] = float(np.median(ratios))


def measure_vectors_cost(
    systems: Sequence[ServedVectors],
    representation: Representation,
    relevance: Relevance,
    texts: Sequence[str],
    n_timed: int,
    *,
    n_pages: int | None = None,
    seed: int = 0,
) -> tuple[list[dict[str, object]], dict[tuple[str, str], np.ndarray]]:
    """Build an index of one vector a page for each system, then search them in turns, exactly and through the graph.

    Parameters
    ----------
    systems : sequence of ServedVectors
        Systems with the same queries and pages; a slow moment of the machine meets all of them.
    representation : Representation
        What is kept.
    relevance : Relevance
        What answers the queries.
    texts : sequence [Q] of str
        The queries, for the time from a text to pages.
    n_timed : int
        How many searches are timed.
    n_pages : int, optional
        Fill up with jittered copies to so many pages; nDCG has no meaning among them then.
    seed : int
        Seed of the noise.

    Returns
    -------
    rows, ndcg
        Rows of ``cost.csv``, and for each system and kind of search the nDCG@5 of every query.
    """
    exact_too = representation.quantization == "none"
    searches = {"exact": True, "approximate": False} if exact_too else {"approximate": False}
    rows: list[dict[str, object]] = []
    ndcg: dict[tuple[str, str], np.ndarray] = {}
    with tempfile.TemporaryDirectory(prefix="miner-diag-cost-") as folder:
        indexes = [
            _index(Path(folder) / str(number), system, representation, n_pages, seed)
            for number, system in enumerate(systems)
        ]
        for search, exact in searches.items():
            asked = [_some(list(index.queries), n_timed) for index in indexes]
            timed = time_searches([index.engine for index in indexes], asked, exact=exact)
            ends = end_to_end(indexes, _some(texts, min(n_timed, ASKED)), exact=exact)
            for index, queries, (times, found), per_second in zip(indexes, asked, timed, ends, strict=True):
                truth = [index.engine.search(query, DEPTH, exact=True) for query in queries]
                row = {**index.columns, "search": search, **search_columns(times), "qps_end_to_end": per_second}
                row["recall_at_10_vs_exact"] = recall(found, truth)
                if n_pages is None:
                    values = ndcg_of(index.engine, list(index.queries), relevance, exact=exact)
                    ndcg[index.served.system, search] = values
                    row["ndcg_at_5"] = float(values.mean())
                rows.append(row)
        for index in indexes:
            index.engine.close()
    return rows, ndcg


@dataclass(frozen=True, eq=False)
class Index:
    """An engine with the pages of one system, ready to be searched."""

    served: ServedVectors
    """The system."""
    engine: Engine
    """Holds its pages."""
    queries: np.ndarray | Sequence[np.ndarray]
    """[Q, D] its queries, as wide as what the engine holds, or the tokens of Q queries."""
    width: int
    """D."""
    columns: dict[str, object]
    """What ``cost.csv`` says of it, whatever is searched."""


def _index(
    folder: Path, served: ServedVectors, representation: Representation, n_pages: int | None, seed: int
) -> Index:
    assert isinstance(served.queries, np.ndarray) and isinstance(served.pages, np.ndarray)
    width = max(1, served.width // representation.share)
    queries, pages = (_unit(side[:, :width]) for side in (served.queries, served.pages))
    if n_pages is not None:
        pages = jittered(pages, n_pages, np.random.default_rng(seed))
    engine, seconds = build(folder, Space(width, representation.quantization), pages)
    columns: dict[str, object] = {
        "system": served.system,
        "representation": representation.name,
        "dtype": representation.dtype,
        "vectors_per_page": 1.0,
        "width": width,
        "bytes_per_page_raw": width * RESCORED[representation.quantization],
        "bytes_on_disk": engine.bytes_on_disk(),
        "build_seconds": seconds,
        **encode_columns(served),
        "n_pages": len(pages),
        "label": MEASURED if n_pages is None else SYNTHETIC,
    }
    return Index(served, engine, queries, width, columns)


def measure_tokens_cost(
    served: ServedVectors, stored_as: StoredAs, relevance: Relevance, texts: Sequence[str], n_timed: int
) -> tuple[list[dict[str, object]], dict[tuple[str, str], np.ndarray]]:
    """Build an index with a vector for every token, and score every page by MaxSim; as `measure_vectors_cost`.

    There is one system, so that nothing is searched in turns with it.
    """
    assert isinstance(served.queries, TokenVectors) and isinstance(served.pages, TokenVectors)
    queries, size = served.queries, np.dtype(stored_as).itemsize
    per_page = len(served.pages.vectors) / len(served.pages)
    items = [queries.item(number) for number in range(len(queries))]
    with tempfile.TemporaryDirectory(prefix="miner-diag-cost-") as folder:
        engine, seconds = build(Path(folder), Space(served.width, "none", stored_as, tokens=True), served.pages)
        ((times, _),) = time_searches([engine], [_some(items, n_timed)], exact=True)
        ndcg = ndcg_of(engine, items, relevance, exact=True)
        row: dict[str, object] = {
            "system": served.system,
            "representation": "late interaction",
            "dtype": stored_as,
            "vectors_per_page": per_page,
            "width": served.width,
            "bytes_per_page_raw": per_page * served.width * size,
            "bytes_on_disk": engine.bytes_on_disk(),
            "build_seconds": seconds,
            **search_columns(times),
            "recall_at_10_vs_exact": 1.0,
            "ndcg_at_5": float(ndcg.mean()),
            **encode_columns(served),
            "n_pages": len(served.pages),
            "search": "exact",
            "qps_end_to_end": end_to_end(
                [Index(served, engine, items, served.width, {})], _some(texts, min(n_timed, ASKED)), exact=True
            )[0],
            "label": MEASURED,
        }
        engine.close()
    return [row], {(served.system, "exact"): ndcg}


def build(folder: Path, space: Space, pages: np.ndarray | TokenVectors) -> tuple[Engine, float]:
    """Fill an engine with pages 0 to P - 1 and build its graph; return it and the seconds that took.

    Raises
    ------
    ServingError
        If the engine is not installed, or not all vectors are in the graph afterwards: such an index is not timed.
    """
    if default_kind() != "qdrant-edge":
        raise ServingError(f"what serving costs is measured on the engine qdrant-edge, which is not installed; {EXTRA}")
    start = time.perf_counter()
    engine = open_engine("qdrant-edge", folder, space)
    engine.upsert([page_point(number) for number in range(len(pages))], pages)
    engine.optimize()
    seconds = time.perf_counter() - start
    refuse_unindexed(engine, len(pages))
    return engine, seconds


def refuse_unindexed(engine: Engine, n_pages: int) -> None:
    """Raise ServingError unless an engine holds so many points, and all their vectors are in its graph."""
    points, indexed = engine.count(), engine.indexed_count()
    if points != n_pages or indexed != n_pages:
        raise ServingError(
            f"the engine must hold {n_pages} points with all vectors in its graph before it is timed; it holds "
            f"{points}, of which {indexed} are there, so it would scan the others. This is no speed of an index"
        )


def page_point(number: int) -> str:
    """Return the id of page number i."""
    return f"00000000-0000-0000-0000-{number:012x}"


def page_number(found: Found) -> int:
    """Return the number of a page by its id."""
    return int(found.point_id[-12:], 16)


def time_searches(
    engines: Sequence[Engine], queries: Sequence[Sequence[np.ndarray]], *, exact: bool
) -> list[tuple[list[list[float]], list[list[Found]]]]:
    """Search several engines in a turning order, one query of each after the other, in `ROUNDS` rounds.

    Parameters
    ----------
    engines : sequence of Engine
        What is searched.
    queries : sequence of sequences of ndarray
        The queries of each engine, as many of each.
    exact : bool
        Whether the graph is passed over.

    Returns
    -------
    list of (times, found)
        For each engine [rounds][queries] milliseconds, and what was found for each query.
    """
    for engine, asked in zip(engines, queries, strict=True):
        for query in asked[:WARM_UP]:
            engine.search(query, DEPTH, exact=exact)
    measured: list[tuple[list[list[float]], list[list[Found]]]] = [([], []) for _ in engines]
    for _ in range(ROUNDS):
        for times, found in measured:
            times.append([])
            found.clear()
        for row in range(len(queries[0])):
            for number in _turned(range(len(engines)), row):
                start = time.perf_counter()
                hits = engines[number].search(queries[number][row], DEPTH, exact=exact)
                measured[number][0][-1].append(1e3 * (time.perf_counter() - start))
                measured[number][1].append(hits)
    return measured


def end_to_end(indexes: Sequence[Index], texts: Sequence[str], *, exact: bool) -> list[float]:
    """Return the queries a second from a text to its pages for each index, in turns; the fastest of `ROUNDS` rounds."""
    rounds = np.zeros((ROUNDS, len(indexes)))
    for number in range(ROUNDS):
        for row, text in enumerate(texts):
            for place in _turned(range(len(indexes)), row):
                index = indexes[place]
                start = time.perf_counter()
                query = np.asarray(index.served.encode_query(text))[..., : index.width]
                index.engine.search(query, DEPTH, exact=exact)
                rounds[number, place] += time.perf_counter() - start
    return (len(texts) / rounds.min(axis=0)).tolist()


def search_columns(rounds: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return median and 95th percentile of all searches, and queries a second of the fastest round."""
    times = np.concatenate(rounds)
    return {
        "search_p50_ms": float(np.median(times)),
        "search_p95_ms": float(np.percentile(times, 95)),
        "qps": 1e3 * max(len(times) / sum(times) for times in rounds),
    }


def encode_columns(served: ServedVectors) -> dict[str, float]:
    """Return the medians of encoding one query and one page, and their ratios to the backbone."""
    medians = {
        f"encode_{side}_p50_ms": float(np.median(times)) if times else np.nan
        for side, times in served.encode_ms.items()
    }
    return medians | served.encode_ratios


def recall(found: Sequence[Sequence[Found]], truth: Sequence[Sequence[Found]]) -> float:
    """Return the mean share of the truly best pages that were found."""
    shares = [
        len({hit.point_id for hit in hits} & {hit.point_id for hit in best}) / len(best)
        for hits, best in zip(found, truth, strict=True)
    ]
    return float(np.mean(shares))


def ndcg_of(engine: Engine, queries: Sequence[np.ndarray], relevance: Relevance, *, exact: bool) -> np.ndarray:
    """Return nDCG@5 [Q] of what an engine finds for each query; what it does not find counts as not retrieved."""
    scores = np.full((len(queries), relevance.n_pages), -np.inf, dtype=np.float32)
    depth = DEPTH + (relevance.own_page is not None)
    for row, query in enumerate(queries):
        for hit in engine.search(query, depth, exact=exact):
            scores[row, page_number(hit)] = hit.score
    return ndcg_with_ties(relevance.without_own_pages(scores), relevance, 5).values


def jittered(pages: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return `n` vectors of length one: the pages [P, D], and copies of them with noise of the length `JITTER`.

    Raises
    ------
    ServingError
        If there are as many pages already.
    """
    if n <= len(pages):
        raise ServingError(f"sizes must be larger than the data's own {len(pages)} pages; got {n}")
    copies = pages[np.arange(n - len(pages)) % len(pages)]
    noise = rng.normal(scale=JITTER / np.sqrt(pages.shape[1]), size=copies.shape)
    return np.concatenate([pages, _unit(copies + noise)]).astype(np.float32)


def with_ratios(rows: Sequence[Mapping[str, object]], backbone: str) -> pd.DataFrame:
    """Return ``cost.csv``: each number of `RATIOS` divided by the backbone's of as many pages and the same search.

    A row whose kind of search the backbone was not run with, or that was published, is divided by nothing.
    """
    table = pd.DataFrame([dict(row) for row in rows]).reindex(columns=COLUMNS)
    own = table[table["system"].eq(backbone) & table["representation"].eq("whole") & table["dtype"].eq("float32")]
    of_search = own.set_index(["n_pages", "search"])
    for number, row in table.iterrows():
        key = (row["n_pages"], row["search"])
        if key not in of_search.index:
            continue
        for ratio, column in RATIOS.items():
            if pd.isna(row[ratio]):  # those of encoding were taken item by item
                table.loc[number, ratio] = row[column] / of_search.loc[key, column]
    return table


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return rows of length one, float32."""
    exact = vectors.astype(np.float64)
    return (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float32)


def _some(items: Sequence, n: int) -> list:
    """Return `n` items, from the start again where there are fewer."""
    return [items[number % len(items)] for number in range(n)]


def _turned(items: Sequence[Item], number: int) -> list[Item]:
    """Return the items, another one first each time."""
    turn = number % len(items)
    return [*items[turn:], *items[:turn]]


def _ms(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return 1e3 * (time.perf_counter() - start)
