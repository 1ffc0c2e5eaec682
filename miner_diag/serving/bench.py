"""What serving a fusion run costs beside its backbone and late interaction: everything measured on one engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from miner_diag.backbones import load_late_backbone
from miner_diag.backbones.options import LoadOptions
from miner_diag.corpus.core import Corpus, Page, Query
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings import StoreOptions, TokenCorpus, open_corpus
from miner_diag.evaluation.systems import final_embeddings, refuse_leakage
from miner_diag.fusion.saved_systems import read_fitted_to, read_load_options
from miner_diag.fusion.served import load_served, served_form
from miner_diag.fusion.system import encode
from miner_diag.probes.splits import take_split
from miner_diag.records import Record
from miner_diag.runs import RunFolder, read_run
from miner_diag.serving.cost import (
    TRUNCATED,
    WHOLE,
    Representation,
    ServedVectors,
    measure_tokens_cost,
    measure_vectors_cost,
    time_encoding,
    with_ratios,
)
from miner_diag.serving.published_cost import published_costs
from miner_diag.serving.retriever import BACKBONE, FusedRetriever

FORMS = ("miner", "trained_maps")
"""The systems of a fusion run that are served beside the backbone: the authors' form and ours."""


@dataclass(frozen=True, eq=False)
class Bench:
    """What was measured."""

    table: pd.DataFrame
    """``cost.csv``."""
    records: list[Record]
    """NDCG@5 of every query, by system and form."""
    part: Corpus
    """The queries and pages."""
    retriever: FusedRetriever
    """The backbone, loaded."""
    lines: list[str]
    """What a person takes away."""


def measure(
    run: Path,
    data: DataOptions,
    split: str,
    store: StoreOptions,
    *,
    late: str | None,
    sizes: Sequence[int],
    n_queries: int,
    n_pages: int,
    seed: int = 0,
    folder: RunFolder | None = None,
) -> Bench:
    """Serve the backbone, both forms of the fusion and late interaction, and measure each.

    Parameters
    ----------
    run : path
        The fusion run.
    data, split, store
        Which queries and pages, and where their layers are kept.
    late : str, optional
        A late-interaction retriever.
    sizes : sequence of int
        Numbers of pages to which the data are filled up with jittered copies; those below the data's own are left out.
    n_queries, n_pages : int
        How many queries and searches, and how many pages, are timed.
    seed : int
        Seed of what is drawn.
    folder : RunFolder, optional
        Gets the times of the stages.

    Raises
    ------
    ServingError
        If the engine is not installed, or an index is not whole before it is timed.
    ValueError
        If the run or the data cannot be used, or the run was fitted to these pages.
    """
    handed_out = str(read_run(run, "miner_diag.fusion").get("form"))
    corpus = data.load()
    part = corpus.split(split)
    refuse_leakage(str(run), read_fitted_to(run), part)
    embedded_corpus = open_corpus(read_load_options(run), data, store, folder, corpus=corpus)
    key = embedded_corpus.backbone.key()
    served = {name: load_served(str(run), run, name, key).module for name in FORMS}
    taken = take_split(embedded_corpus, corpus, split, store.memory_gb)
    relevance = taken.data.relevance
    vectors = {BACKBONE: final_embeddings(taken.embedded)}
    vectors |= {name: encode(served_form(module), taken.data) for name, module in served.items()}
    del embedded_corpus, taken  # a second copy of the backbone draws the pages that are handed to it one by one
    backbone = FusedRetriever.from_run(run, BACKBONE)
    retrievers = {BACKBONE: backbone} | {name: backbone.beside(module, name) for name, module in served.items()}
    systems = [_served(name, retrievers[name], *vectors[name], part) for name in retrievers]
    tokens = None if late is None else _late(late, corpus, part, store, backbone.backbone.options)
    _stage(folder, "vectors")

    rng = np.random.default_rng(seed)
    texts = [query.text for query in part.queries]
    drawn = rng.permutation(len(texts))[: min(n_queries, len(texts))]
    pages = rng.permutation(len(part.pages))[: min(n_pages, len(part.pages))].tolist()
    time_encoding([*systems, *([] if tokens is None else [tokens])], [texts[row] for row in drawn], pages)
    _stage(folder, "encode")

    rows: list[dict[str, object]] = []
    records: list[Record] = []
    larger = sorted({size for size in sizes if size > len(part.pages)})
    large_systems = [system for system in systems if system.system in (BACKBONE, handed_out)]
    jobs: list[tuple[list[ServedVectors], Representation, int | None]] = [
        (systems, form, None) for form in (*WHOLE, *TRUNCATED)
    ]
    jobs += [(large_systems, form, size) for size in larger for form in WHOLE]
    for served_now, form, size in tqdm(jobs, desc="indexes", unit="form", delay=2.0):
        measured, ndcg = measure_vectors_cost(served_now, form, relevance, texts, n_queries, n_pages=size, seed=seed)
        rows += measured
        records += _records(part, backbone, f"{form.name}, {form.dtype}", ndcg)
    _stage(folder, "single vectors")
    if tokens is not None:
        for stored_as in ("float16", "float32"):
            measured, ndcg = measure_tokens_cost(tokens, stored_as, relevance, texts, n_queries)
            rows += measured
            records += _records(part, backbone, f"late interaction, {stored_as}", ndcg)
        _stage(folder, "late interaction")
    table = with_ratios([{**row, "data": part.name} for row in rows], BACKBONE)
    table = pd.concat([table, published_costs().reindex(columns=table.columns)], ignore_index=True)
    lines = cost_lines(table, handed_out)
    left_out = sorted(set(sizes) - set(larger))
    if left_out:
        lines.append(f"Sizes {', '.join(map(str, left_out))} are not above the data's own {len(part.pages)} pages.")
    return Bench(table, records, part, backbone, lines)


def cost_lines(table: pd.DataFrame, fusion: str) -> list[str]:
    """Return what a person takes away of ``cost.csv``; `fusion` is the form that the run hands out."""
    own = table[table["label"].eq("measured")]
    whole = own[own["representation"].eq("whole") & own["dtype"].eq("float32") & own["search"].eq("approximate")]
    backbone, fused = (whole[whole["system"].eq(name)].iloc[0] for name in (BACKBONE, fusion))
    lines = [
        f"{fusion} has {fused.bytes_per_page_raw:,.0f} bytes a page, as the backbone; a query is encoded in "
        f"{fused.encode_query_p50_ms:.2f} ms, {fused.encode_query_to_backbone:.3f} of the backbone's "
        f"{backbone.encode_query_p50_ms:.2f} ms, and searched in {fused.search_p50_ms:.3f} ms "
        f"({backbone.search_p50_ms:.3f} ms); from text to pages {fused.qps_end_to_end:.1f} queries a second "
        f"({backbone.qps_end_to_end:.1f}).",
    ]
    for row in own[own["representation"].eq("late interaction")].itertuples():
        lines.append(
            f"Late interaction, {row.dtype}: {row.bytes_per_page_raw:,.0f} bytes a page, "
            f"{row.bytes_per_page_to_backbone:.0f} times the backbone's, {row.search_p50_ms:.1f} ms a search, "
            f"nDCG@5 {row.ndcg_at_5:.3f} beside {backbone.ndcg_at_5:.3f} of the backbone and {fused.ndcg_at_5:.3f} of "
            f"{fusion}."
        )
    lines.append("Rows of the paper are published, not run here, and of other data.")
    return lines


def _served(
    name: str, retriever: FusedRetriever, queries: np.ndarray, pages: np.ndarray, part: Corpus
) -> ServedVectors:
    return ServedVectors(
        name,
        queries,
        pages,
        lambda text: retriever.encode_queries([text], progress=False)[0],
        lambda number: retriever.encode_pages([part.pages[number]], render=part.render, progress=False),
    )


def _late(late: str, corpus: Corpus, part: Corpus, store: StoreOptions, own: LoadOptions) -> ServedVectors:
    """Return a late-interaction retriever with the tokens of all queries and pages."""
    load = LoadOptions(late, reader=own.reader, device=own.device, dtype=own.dtype)
    backbone = load_late_backbone(load, render=corpus.render)
    queries, pages = TokenCorpus(corpus, backbone, store).take(part).stores

    def encode_query(text: str) -> np.ndarray:
        return backbone.embed_tokens(backbone.prepare([Query("query", text, "given", "")], "query"))[0]

    def encode_page(number: int) -> object:
        page: Page = part.pages[number]
        return backbone.embed_tokens(backbone.prepare([page], "page"))

    return ServedVectors(backbone.name, queries.token_vectors, pages.token_vectors, encode_query, encode_page)


def _records(
    part: Corpus, retriever: FusedRetriever, form: str, ndcg: dict[tuple[str, str], np.ndarray]
) -> list[Record]:
    return [
        Record(
            retriever.backbone.name,
            retriever.revision,
            part.name,
            part.part,
            "ndcg_at_5",
            float(value),
            system=f"{system}; {form}; {search}",
            query_id=query.query_id,
        )
        for (system, search), values in ndcg.items()
        for query, value in zip(part.queries, values, strict=True)
    ]


def _stage(folder: RunFolder | None, name: str) -> None:
    if folder is not None:
        folder.stage(name)
