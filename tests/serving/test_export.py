"""The command writes each form, and refuses options that have no effect."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from miner_diag.backbones import LoadOptions
from miner_diag.serving import FusedRetriever, ServingError, load_sentence_transformer
from miner_diag.serving.__main__ import main
from miner_diag.serving.export import ExportOptions
from tests.serving.made import QUERIES


def export(capsys, out, *more):
    main(["export", "--out", str(out), *map(str, more)])
    return capsys.readouterr().out


def test_a_run_is_written_for_a_hub_and_for_sentence_transformers(fitted, retriever, capsys, tmp_path):
    printed = export(capsys, tmp_path / "hub", "--run", fitted.fusion)
    assert f"{tmp_path}/hub holds {retriever.name} with its card" in printed
    again = FusedRetriever.from_pretrained(tmp_path / "hub")
    np.testing.assert_array_equal(again.encode_queries(QUERIES), retriever.encode_queries(QUERIES))
    printed = export(capsys, tmp_path / "st", "--run", fitted.fusion, "--to", "sentence-transformers")
    assert "trust_remote_code=True" in printed
    model = load_sentence_transformer(tmp_path / "st")
    np.testing.assert_allclose(model.encode_query(QUERIES), retriever.encode_queries(QUERIES), atol=1e-5)


def test_one_layer_of_a_backbone_is_written_plain(checkpoint, capsys, tmp_path):
    backbone = ["--model", checkpoint, "--pooling", "mean", "--layers", 2]
    export(capsys, tmp_path / "out", *backbone, "--to", "sentence-transformers", "--plain")
    expected = FusedRetriever.from_model(LoadOptions(str(checkpoint), pooling="mean"), 2).encode_queries(QUERIES)
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(model.encode(QUERIES), expected, atol=1e-5)


def test_vectors_of_a_split_are_written(fitted, capsys, tmp_path):
    data = ["--data", fitted.documents, "--queries", "verbatim", "--split", "test"]
    printed = export(capsys, tmp_path / "out", "--run", fitted.fusion, "--to", "vectors", *data)
    vectors = np.load(tmp_path / "out" / "pages.npy")
    assert f"the vectors of {len(vectors)} pages" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{side}{end}" for side in ("pages", "queries") for end in (".npy", "_ids.npy", ".parquet")
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"split": "test"}, "--split has no effect with --to hub"),
        ({"to": "onnx", "plain": True}, "--plain has no effect with --to onnx"),
        ({"to": "vectors", "with_backbone": True}, "--with-backbone has no effect with --to vectors"),
        ({"to": "sentence-transformers", "plain": True, "with_backbone": True}, "no effect with --plain"),
        ({"system": "miner"}, "--system miner names a system of a fusion run; give --run"),
        ({"run": "r", "layers": 2}, "--layers serves a layer of a backbone"),
        ({"run": "r", "load": LoadOptions("page-text-bge")}, "--model has no effect with --run"),
    ],
)
def test_options_without_effect_are_refused(given, message, tmp_path):
    with pytest.raises(ServingError, match=message):
        ExportOptions(tmp_path, **given)


def test_a_bad_layer_ends_with_a_sentence(checkpoint, tmp_path, capsys):
    backbone = ["--model", str(checkpoint), "--pooling", "mean", "--layers", "9"]
    with pytest.raises(SystemExit, match="error: layer must be one of the 4 hidden states, 0 to 3; got 9"):
        main(["export", "--out", str(tmp_path / "out"), *backbone])
