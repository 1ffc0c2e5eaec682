"""ONNX Runtime, given our graphs, finds our vectors, on batches of several sizes and lengths."""

from __future__ import annotations

import json

import numpy as np
import pytest

from miner_diag.serving import ServingError, onnx_form
from miner_diag.serving.onnx_form import write_onnx
from tests.serving.made import QUERIES, SYSTEMS, fusion, miner, served

onnxruntime = pytest.importorskip("onnxruntime", reason='needs the extra "onnx"')
pytest.importorskip("onnxscript", reason='needs the extra "onnx"')

BATCHES = [QUERIES[:1], QUERIES, ["wave reef salt " * 12, "tide"], [*QUERIES, *QUERIES, "reef " * 40]]


def run(path, **inputs):
    return onnxruntime.InferenceSession(str(path)).run(None, inputs)[0]


def tokens_of(folder, texts):
    """What a user of the folder does: its tokenizer, padded on the right."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(texts, padding=True, padding_side="right", return_tensors="np")
    return {name: array.astype(np.int64) for name, array in encoded.items()}


@pytest.mark.parametrize(
    ("system", "changes"),
    [(fusion, {}), (miner, {"pooling": "last"}), (fusion, {"pooling": "cls", "layer_pooling": "mean"})],
)
def test_a_graph_from_tokens_to_vectors(system, changes, load, tmp_path):
    retriever = served(load(query_prompt="salt ", **changes), system())
    (path,) = write_onnx(retriever, tmp_path)
    facts = json.loads((tmp_path / "onnx.json").read_text())
    assert facts["fingerprint"] == retriever.fingerprint and facts["prompts"] == {"query": "salt ", "page": ""}
    for texts in BATCHES:
        inputs = tokens_of(tmp_path, [facts["prompts"]["query"] + text for text in texts])
        np.testing.assert_allclose(run(path, **inputs), retriever.encode_queries(texts), atol=1e-5)
    # what stands in the padding does not matter
    inputs["input_ids"][inputs["attention_mask"] == 0] = 9
    np.testing.assert_allclose(run(path, **inputs), retriever.encode_queries(texts), atol=1e-5)


@pytest.mark.parametrize("name", ["ours with a side each", "miner for pages only"])
def test_sides_with_maps_of_their_own_have_a_graph_each(name, load, tmp_path, rng):
    retriever = served(load(), SYSTEMS[name]())
    written = write_onnx(retriever, tmp_path, system_alone=True)
    graphs = json.loads((tmp_path / "onnx.json").read_text())["graphs"]
    assert [path.name for path in written] == list(graphs.values()) == ["system-query.onnx", "system-page.onnx"]
    for n in (1, 7):
        states = rng.normal(size=(n, len(retriever.layers), 32)).astype(np.float32)
        for side, graph in graphs.items():
            expected = retriever._fused(states, side, 0)
            np.testing.assert_allclose(run(tmp_path / graph, states=states), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["ours without the final layer", "a head that bends", "a probe of an inner layer"])
def test_a_system_alone(name, load, tmp_path, rng):
    retriever = served(load(), SYSTEMS[name]())
    (path,) = write_onnx(retriever, tmp_path, system_alone=True)
    states = rng.normal(size=(5, len(retriever.layers), 32)).astype(np.float32)
    np.testing.assert_allclose(run(path, states=states), retriever._fused(states, "page", 0), atol=1e-5)


def test_a_graph_that_gives_other_vectors_is_deleted(load, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_form, "TOLERANCE", -1.0)
    with pytest.raises(
        ServingError, match=r"system.onnx gave vectors that are .* from ours on {'states': \[1, 2, 32\]}"
    ):
        write_onnx(served(load(), fusion()), tmp_path, system_alone=True)
    assert not (tmp_path / "system.onnx").exists()


def test_a_missing_extra_is_named(load, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ServingError, match=r'miner-diag\[onnx\]" \(onnxscript is not installed\)'):
        write_onnx(served(load(), fusion()), tmp_path)
