"""Exported vectors are those of the retriever, in files that NumPy, datasets and FAISS read."""

from __future__ import annotations

import datasets
import numpy as np
import pytest

from miner_diag.corpus import load_corpus
from miner_diag.serving.vectors import write_side, write_vectors


def test_every_file_holds_the_same_vectors_and_ids(retriever, fitted, tmp_path):
    corpus = load_corpus(str(fitted.documents), queries="verbatim").split("validation")
    counts = write_vectors(retriever, corpus, tmp_path)
    assert counts == {"pages": len(corpus.pages), "queries": len(corpus.queries)}
    expected = {
        "pages": retriever.encode_pages(corpus.pages).vectors,
        "queries": retriever.encode_queries([query.text for query in corpus.queries]),
    }
    ids = {"pages": [p.page_id for p in corpus.pages], "queries": [q.query_id for q in corpus.queries]}
    for side in ("pages", "queries"):
        array = np.load(tmp_path / f"{side}.npy", allow_pickle=False)
        assert array.dtype == np.float32 and array.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(array, expected[side])
        assert np.load(tmp_path / f"{side}_ids.npy", allow_pickle=False).tolist() == ids[side]
        table = datasets.load_dataset(
            "parquet", data_files=str(tmp_path / f"{side}.parquet"), split="train", cache_dir=str(tmp_path / "cache")
        )
        assert table["id"][:] == ids[side]
        np.testing.assert_array_equal(np.array(table["vector"], dtype=np.float32), expected[side])
    assert not list(tmp_path.glob("*.pkl"))


def test_faiss_takes_the_file_as_it_is_and_ranks_as_we_do(rng, tmp_path):
    faiss = pytest.importorskip("faiss", reason="needs faiss-cpu")
    vectors = rng.normal(size=(50, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_side(tmp_path, "pages", [str(number) for number in range(50)], vectors, {})
    index = faiss.IndexFlatIP(8)
    index.add(np.load(tmp_path / "pages.npy"))
    _, found = index.search(vectors[:5], 3)
    np.testing.assert_array_equal(found, np.argsort(-(vectors[:5] @ vectors.T), axis=1)[:, :3])
