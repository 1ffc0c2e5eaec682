"""Vectors and ids of queries and pages as files that other tools read: .npy, parquet, rows for FAISS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from miner_diag.corpus import Corpus
from miner_diag.files import atomic_path
from miner_diag.serving.retriever import FusedRetriever


def write_vectors(retriever: FusedRetriever, corpus: Corpus, folder: Path) -> dict[str, int]:
    """Write the vectors of a corpus, queries and pages, and their ids.

    Each side has ``<side>.npy`` ([N, D] float32, rows of length one, in C order: what ``faiss.IndexFlatIP(D).add``
    takes), ``<side>_ids.npy`` (texts, row by row) and ``<side>.parquet`` (columns id and vector; pages have their
    document, page number and note, too), which ``datasets.load_dataset("parquet", …)`` reads.

    Returns
    -------
    dict
        Side -> the number of rows.
    """
    pages = retriever.encode_pages(corpus.pages, render=corpus.render)
    columns: dict[str, Sequence[object]] = {
        "document": [page.doc_id for page in pages.pages],
        "page_number": [page.page_number for page in pages.pages],
        "note": list(pages.notes),
    }
    write_side(folder, "pages", pages.ids, pages.vectors, columns)
    queries = retriever.encode_queries([query.text for query in corpus.queries])
    texts = {"text": [query.text for query in corpus.queries]}
    write_side(folder, "queries", [query.query_id for query in corpus.queries], queries, texts)
    return {"pages": len(pages.vectors), "queries": len(queries)}


def write_side(
    folder: Path, side: str, ids: Sequence[str], vectors: np.ndarray, columns: Mapping[str, Sequence[object]]
) -> None:
    """Write one side's vectors [N, D], their ids, and further columns of the parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    for name, array in ((side, vectors), (f"{side}_ids", np.array(ids, dtype=np.str_))):
        with atomic_path(folder / f"{name}.npy") as temporary:
            np.save(temporary, array, allow_pickle=False)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table = pa.table({"id": list(ids), **columns, "vector": rows})
    with atomic_path(folder / f"{side}.parquet") as temporary:
        pq.write_table(table, temporary)
