import json

import numpy as np
import pytest

from miner_diag.embeddings import __main__ as command
from miner_diag.embeddings import embedded
from miner_diag.records import read_records
from tests.embeddings.helpers import make_corpus, three_splits


@pytest.fixture
def small_corpus(monkeypatch):
    corpus = three_splits()
    monkeypatch.setattr("miner_diag.corpus.options.load_corpus", lambda data, **options: corpus)
    return corpus


@pytest.fixture
def pretended(monkeypatch, backbone, small_corpus):
    monkeypatch.setattr(embedded, "load_backbone", lambda load, **options: backbone)
    return backbone


@pytest.fixture
def arguments(tmp_path):
    return ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "run")]


def test_writes_both_sides_and_what_was_run(pretended, small_corpus, arguments, tmp_path, capsys):
    command.main(arguments)
    part = small_corpus.split("validation")
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["command"] == "miner_diag.embeddings"
    assert run["options"]["split"] == "validation" and run["options"]["load"]["model"] == "page-text"
    assert run["options"]["store"]["store"] == str(tmp_path / "store")
    assert run["last_layer"] == "Layer 3 is the last."
    assert run["noise_floor"]["max_relative_difference"] == [0, 0, 0, 0]
    assert (run["n_queries"], run["n_pages"]) == (len(part.queries), len(part.pages))
    assert run["pages_without_text"] == run["pages_truncated"] == 0
    assert list(run["seconds_by_stage"]) == ["corpus", "backbone", "embed", "noise floor"]
    output = capsys.readouterr()
    assert f"{len(part.pages)} pages x 4 layers x 6 are in {tmp_path}" in output.out and "noise floor" in output.out
    assert output.out.splitlines()[-1] == f"next: python -m miner_diag.cka --store {tmp_path / 'store'}"
    assert output.err.startswith(f"embedding {len(part.pages)} pages and {len(part.queries)} queries with pretend:")
    records = list(read_records(tmp_path / "run" / "records.jsonl"))
    assert {(r.measure, r.layer) for r in records if r.layer is not None} == {
        (f"noise_floor_{what}", layer) for what in ("max", "mean") for layer in range(4)
    }
    counts = {r.measure: r.value for r in records if r.layer is None}
    assert counts == {"n_queries": len(part.queries), "n_pages": len(part.pages)}
    assert all((r.split, r.model, r.dataset) == ("validation", "pretend", "tiny") for r in records)


def test_a_second_run_embeds_nothing_and_another_model_has_a_store_of_its_own(pretended, arguments, tmp_path):
    command.main(arguments)
    pretended.batches.clear()
    command.main(arguments)
    assert pretended.batches == []
    pretended.revision = "sha256:1"
    command.main(arguments)
    assert pretended.batches and len(list((tmp_path / "store").iterdir())) == 4


def test_a_limit_draws_pages_of_all_splits(pretended, small_corpus, arguments, tmp_path, capsys):
    command.main([*arguments, "--limit", "100", "--split", "all"])
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["n_pages"] == 100 and run["corpus_part"] == "all, 100 pages"
    assert "--limit 100" in capsys.readouterr().out.splitlines()[-1]
    assert sorted(pretended.embedded()[: run["n_queries"] + 100]) == sorted(
        [query.query_id for query in small_corpus.sample_pages(100).queries]
        + [page.page_id for page in small_corpus.sample_pages(100).pages]
    )


def test_bad_input_is_a_sentence(monkeypatch, small_corpus, arguments):
    with pytest.raises(SystemExit, match="error: unknown model 'nothing'; there is: page-text"):
        command.main(["--model", "nothing", *arguments])
    alone = make_corpus({"d0": 4})
    monkeypatch.setattr("miner_diag.corpus.options.load_corpus", lambda data, **options: alone)
    split = next(name for name in ("train", "test") if name != alone.splits["d0"])
    with pytest.raises(SystemExit, match=f"error: the {split} split of tiny .* holds no query"):
        command.main(["--split", split, *arguments])


def test_an_option_without_effect_is_refused(pretended, arguments, capsys):
    with pytest.raises((SystemExit, ValueError)) as caught:
        command.main([*arguments, "--memory-gb", "2"])
    output = " ".join(f"{caught.value} {capsys.readouterr()}".split())
    assert "--memory-gb has no effect on embeddings" in output and pretended.batches == []


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    output = " ".join(capsys.readouterr().out.split())
    for words in ("--model", "--reader", "--token-budget", "--store", "the others read", "--trust-remote-code"):
        assert words in output


def test_end_to_end_on_a_tiny_checkpoint(small_corpus, arguments, tmp_path):
    """A random-weight checkpoint of a real class, from the command line to finite vectors."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModel, BertConfig, PreTrainedTokenizerFast

    from miner_diag.backbones import LoadOptions
    from miner_diag.corpus.options import DataOptions
    from miner_diag.embeddings import StoreOptions, open_corpus

    torch.manual_seed(0)
    small = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    AutoModel.from_config(BertConfig(vocab_size=8, max_position_embeddings=64, **small)).save_pretrained(tmp_path / "m")
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "x": 2, "what": 3, "is": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        tmp_path / "m"
    )
    model = ["--model", str(tmp_path / "m"), "--pooling", "mean", "--reader", "text-layer", "--device", "cpu"]
    command.main([*model, *arguments])
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["backbone"]["pooling"] == "mean" and run["backbone"]["reader"] == "text-layer"
    assert max(run["noise_floor"]["max_relative_difference"]) < 1e-5
    load = LoadOptions(str(tmp_path / "m"), pooling="mean", reader="text-layer", device="cpu")
    embedded_corpus = open_corpus(load, DataOptions(), StoreOptions(tmp_path / "store"), progress=False)
    embedded_corpus.backbone.embed_kept = lambda batch: pytest.fail("all of it is in the store")
    store = embedded_corpus.take(embedded_corpus.corpus.split("validation")).stores.pages
    assert store.shape == (len(small_corpus.split("validation").pages), 3, 8)
    assert np.isfinite(store.layer_embeddings).all()
