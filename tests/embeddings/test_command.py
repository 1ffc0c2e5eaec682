import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from miner_diag.corpus.core import Corpus
from miner_diag.embeddings import __main__ as command
from miner_diag.embeddings import job, open_store


@pytest.fixture
def small_corpus(pages, queries):
    return Corpus(
        name="tiny",
        form="hidden",
        fold=0,
        pages=tuple(pages),
        queries=tuple(queries),
        qrels={query.query_id: {f"p{number}": 1} for number, query in enumerate(queries)},
        splits={"d": "validation"},
        renderer=lambda page_id, side: Image.new("RGB", (side, side), "white"),
    )


@pytest.fixture
def pretended(monkeypatch, backbone, small_corpus):
    monkeypatch.setattr(job, "load_backbone", lambda model, **options: backbone)
    monkeypatch.setattr(job, "load_corpus", lambda data, **options: small_corpus)
    return backbone


def test_writes_both_sides_and_what_was_run(pretended, tmp_path, capsys):
    command.main(["--out", str(tmp_path / "run")])
    assert open_store(tmp_path / "run" / "pages").shape == (40, 4, 6)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["command"] == "miner_diag.embeddings"
    assert run["options"]["split"] == "validation"
    assert run["last_layer"] == "Layer 3 is the last."
    assert run["noise_floor"]["max_relative_difference"] == [0, 0, 0, 0]
    assert (run["n_queries"], run["n_pages"]) == (12, 40)
    assert run["pages_without_text"] == run["pages_truncated"] == 0
    told = capsys.readouterr().out
    assert "pages    40 x 4 layers x 6" in told and "noise floor" in told


def test_a_second_run_embeds_nothing_and_another_model_is_refused(pretended, tmp_path):
    command.main(["--out", str(tmp_path / "run")])
    pretended.batches.clear()
    command.main(["--out", str(tmp_path / "run")])
    assert pretended.batches == []
    pretended.revision = "sha256:1"
    with pytest.raises(SystemExit, match=r"error: .*Fields that differ: backbone_revision: 'sha256:0' there"):
        command.main(["--out", str(tmp_path / "run")])


def test_a_limit_draws_pages(pretended, small_corpus, monkeypatch, tmp_path):
    command.main(["--out", str(tmp_path / "run"), "--limit", "39"])
    store = open_store(tmp_path / "run" / "pages")
    assert len(store) == 39
    assert store.key["corpus_part"] == "validation, 39 pages"


def test_bad_input_is_a_sentence(monkeypatch, small_corpus, tmp_path):
    monkeypatch.setattr(job, "load_corpus", lambda data, **options: replace(small_corpus))
    with pytest.raises(SystemExit, match="error: unknown model 'nothing'; there is: page-text"):
        command.main(["--model", "nothing", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="error: the train split of tiny .* holds no query"):
        command.main(["--split", "train", "--out", str(tmp_path)])


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for words in ("--model", "--reader", "--token-budget", "Overrules the checkpoint's limit", "--trust-remote-code"):
        assert words in told


def test_end_to_end_on_a_tiny_checkpoint(small_corpus, monkeypatch, tmp_path):
    """A random-weight checkpoint of a real class, from the command line to finite vectors."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModel, BertConfig, PreTrainedTokenizerFast

    torch.manual_seed(0)
    small = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    AutoModel.from_config(BertConfig(vocab_size=8, max_position_embeddings=64, **small)).save_pretrained(tmp_path / "m")
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "x": 2, "what": 3, "is": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        tmp_path / "m"
    )
    monkeypatch.setattr(job, "load_corpus", lambda data, **options: small_corpus)
    arguments = ["--model", str(tmp_path / "m"), "--pooling", "mean", "--reader", "text-layer", "--device", "cpu"]
    command.main([*arguments, "--out", str(tmp_path / "run")])
    store = open_store(tmp_path / "run" / "pages")
    assert store.shape == (40, 3, 8)
    assert np.isfinite(store.layer_embeddings).all()
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["backbone"]["pooling"] == "mean" and run["backbone"]["reader"] == "text-layer"
    assert max(run["noise_floor"]["max_relative_difference"]) < 1e-5
