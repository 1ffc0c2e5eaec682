"""The command, end to end: a tiny checkpoint over a small corpus, beside its single-vector partner."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from miner_diag.backbones import LoadOptions
from miner_diag.corpus import options as data_options
from miner_diag.corpus.core import Corpus, Page, Query
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings import StoreOptions, open_corpus, open_token_corpus
from miner_diag.evaluation import ScoredSystem
from miner_diag.evaluation.scored_system import Measures, compare_scored
from miner_diag.evaluation.table import difference_words
from miner_diag.late.__main__ import main
from miner_diag.late.run import LateOptions
from miner_diag.records import read_records
from miner_diag.retrieval import maxsim_scores, ndcg_at_k
from miner_diag.stats import StatisticsOptions
from tests.backbones.conftest import save_tiny, tiny_bert_config, write_pipeline
from tests.backbones.late_checkpoints import CLASSES, save_late


@pytest.fixture
def corpus(monkeypatch):
    """Eight documents of three pages; a query has a word of its page and one of the next."""
    rng = np.random.default_rng(5)
    words = [[f"w{n}" for n in rng.integers(0, 40, 12)] for _ in range(24)]
    pages = tuple(Page(f"p{n}", f"d{n // 3}", n % 3 + 1, " ".join(words[n]), f"h{n}") for n in range(24))
    queries = tuple(
        Query(f"q{n}", " ".join([words[n][0], words[(n + 1) % 24][0]]), "given", f"d{n // 3}") for n in range(24)
    )
    made = Corpus(
        name="tiny",
        form="verbatim",
        fold=0,
        pages=pages,
        queries=queries,
        qrels={f"q{n}": {f"p{n}": 1} for n in range(24)},
        splits={f"d{n}": "validation" for n in range(8)},
        renderer=lambda page_id, side: Image.new("RGB", (60 + 10 * int(page_id[1:]), 90), "white"),
    )
    monkeypatch.setattr(data_options, "load_corpus", lambda data, **options: made)
    return made


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = save_tiny(tmp_path_factory.mktemp("m") / "tiny-bert", tiny_bert_config())
    return write_pipeline(folder, {"embedding_dimension": 32, "pooling_mode": "mean"})


def arguments(model, out):
    fixed = ["--model", str(model), "--device", "cpu", "--store", str(out.parent / "store"), "--out", str(out)]
    return [*fixed, "--reader", "text-layer"]


def test_writes_what_was_measured(corpus, encoder, tmp_path, capsys):
    main([*arguments(encoder, tmp_path / "run"), "--against", str(encoder)])
    printed = capsys.readouterr().out
    out = tmp_path / "run"
    load = LoadOptions(str(encoder), device="cpu", reader="text-layer")
    store = StoreOptions(tmp_path / "store")
    queries, pages = open_token_corpus(load, DataOptions(), store).take(corpus.split("validation")).stores
    values = ndcg_at_k(maxsim_scores(queries.token_vectors, pages.token_vectors), np.arange(24))
    with (out / "ndcg_per_query.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["query_id"] for row in rows] == [f"q{n}" for n in range(24)]
    np.testing.assert_allclose([float(row["ndcg_at_5"]) for row in rows], values, atol=1e-6)
    records = {(r.model, r.system, r.measure): r for r in read_records(out / "records.jsonl") if r.query_id is None}
    mean = records["tiny-bert-late", "late", "ndcg_at_5"]
    assert mean.value == pytest.approx(values.mean()) and mean.low < mean.value < mean.high
    assert (mean.n, mean.n_clusters, mean.method) == (24, 8, "bootstrap over documents and seeds")
    assert mean.effective_clusters == pytest.approx(8)
    late = {measure: record for (model, _, measure), record in records.items() if model == "tiny-bert-late"}
    assert late["page_tokens_mean"].value == 12  # special tokens do not take part
    assert late["page_bytes_mean"].value == 12 * 32 * 4
    assert late["ndcg_at_5_worst"].value <= mean.value <= late["ndcg_at_5_best"].value and "tie_rate" in late
    single = records["tiny-bert", "backbone", "ndcg_at_5"]
    assert records["tiny-bert", "backbone", "page_bytes_mean"].value == 32 * 4
    difference = late["ndcg_at_5_less_backbone"]
    assert difference.value == pytest.approx(mean.value - single.value) and 0 < difference.p_value <= 1
    run = json.loads((out / "run.json").read_text())
    assert run["command"] == "miner_diag.late" and run["page_tokens"]["tokens_total"] == 24 * 12
    assert run["backbone"]["kept_tokens"] == "text" and run["against"]["backbone"] == "tiny-bert"
    assert run["stored_dtype"] == "float32" and set(run["seconds_by_stage"]) >= {"embed", "maxsim", "against"}
    assert "context (the chosen head, late interaction" in run["caption"]
    assert f"nDCG@5           {mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}], intervals over 8 documents" in printed
    assert "tokens per page  12.0 in the mean, 12 at most, 288 in all" in printed
    assert "bytes per page   1536 in the mean, 1536 at most, 36864 in all (float32)" in printed
    assert f"against tiny-bert: nDCG@5 {single.value:.4f}" in printed and "(12 times fewer)" in printed
    assert f"difference       {difference.value:+.4f} [" in printed
    assert "next: python -m miner_diag.evaluation" in printed


def test_every_query_has_a_record_for_both_retrievers(corpus, encoder, tmp_path):
    main([*arguments(encoder, tmp_path / "run"), "--against", str(encoder)])
    records = [record for record in read_records(tmp_path / "run" / "records.jsonl") if record.query_id is not None]
    for model, system, name in (
        ("tiny-bert-late", "late", "ndcg_per_query"),
        ("tiny-bert", "backbone", "ndcg_per_query_against"),
    ):
        values = {r.query_id: r.value for r in records if (r.model, r.system) == (model, system)}
        with (tmp_path / "run" / f"{name}.csv").open() as handle:
            table = {row["query_id"]: float(row["ndcg_at_5"]) for row in csv.DictReader(handle)}
        assert values == pytest.approx(table, abs=1e-6) and len(values) == 24


def test_the_partner_is_read_from_the_store_that_all_commands_share(corpus, encoder, tmp_path, monkeypatch):
    from miner_diag.backbones.text_encoder import TextEncoder

    load = LoadOptions(str(encoder), device="cpu", reader="text-layer")
    part = corpus.split("validation")
    embedded = open_corpus(load, DataOptions(), StoreOptions(tmp_path / "store")).take(part)  # as cka does
    monkeypatch.setattr(TextEncoder, "embed_kept", lambda self, batch: pytest.fail("a forward of the partner"))
    main([*arguments(encoder, tmp_path / "run"), "--against", str(encoder)])
    assert embedded.stores.pages.shape == (24, 4, 32)


def test_the_same_run_gives_the_same_numbers_from_the_store(corpus, encoder, tmp_path, capsys, monkeypatch):
    from miner_diag.backbones.late import LastLayerTokens

    main(arguments(encoder, tmp_path / "run"))
    first = capsys.readouterr().out.splitlines()[:-2]  # without the seconds, and the next command
    records = (tmp_path / "run" / "records.jsonl").read_bytes()
    monkeypatch.setattr(LastLayerTokens, "embed_tokens", lambda self, batch: pytest.fail("a forward"))
    main(arguments(encoder, tmp_path / "run"))
    assert capsys.readouterr().out.splitlines()[:-2] == first
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == records


def test_an_interval_does_not_depend_on_what_else_is_asked(corpus, encoder, tmp_path):
    means = []
    for name, more in (("alone", []), ("compared", ["--against", str(encoder)])):
        main([*arguments(encoder, tmp_path / name), *more])
        records = read_records(tmp_path / name / "records.jsonl")
        means.append(next(r for r in records if (r.system, r.measure, r.query_id) == ("late", "ndcg_at_5", None)))
    assert means[0] == means[1]


def test_a_run_without_a_partner_leaves_nothing_of_an_earlier_one(corpus, encoder, tmp_path):
    main([*arguments(encoder, tmp_path / "run"), "--against", str(encoder)])
    main(arguments(encoder, tmp_path / "run"))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"ndcg_per_query.csv", "records.jsonl", "run.json"}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["against"] is None


def test_more_special_tokens_and_half_precision_are_options(corpus, encoder, tmp_path, capsys):
    more = ["--kept-tokens", "all", "--stored-dtype", "float16", "--k", "3"]
    main([*arguments(encoder, tmp_path / "run"), *more])
    printed = capsys.readouterr().out
    assert "nDCG@3" in printed
    assert "tokens per page  14.0" in printed and "bytes per page   896 in the mean" in printed
    main([*arguments(encoder, tmp_path / "run"), "--kept-tokens", "all"])  # the other precision is kept beside it
    assert "bytes per page   1792 in the mean" in capsys.readouterr().out


def test_queries_find_their_pages_far_above_chance(corpus, encoder, tmp_path):
    """Words are all there is to see; a query shares one with its page. Chance is 0.12."""
    main(arguments(encoder, tmp_path / "run"))
    mean = read_records(tmp_path / "run" / "records.jsonl")[0]
    assert mean.low > 0.3 and mean.n_clusters == 8


@pytest.mark.parametrize("architecture", CLASSES)
def test_a_picture_model_runs_by_its_configs_name(corpus, tmp_path, architecture, capsys):
    folder = save_late(tmp_path / architecture, architecture)
    fixed = ["--model", str(folder), "--device", "cpu", "--store", str(tmp_path / "store")]
    main([*fixed, "--out", str(tmp_path / "run"), "--limit", "9", "--intervals-over", "items"])
    printed = capsys.readouterr().out
    assert f"{architecture} on tiny, validation, 9 pages: verbatim queries, fold 0; 9 queries, 9 pages" in printed
    assert "single queries" in printed
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["backbone"]["architecture"] == architecture and run["n_pages"] == 9
    cost = run["page_tokens"]
    assert cost["tokens_mean"] >= 16 and cost["bytes_mean"] == cost["tokens_mean"] * 16 * 4


@pytest.mark.parametrize("gain", [0.2, 0.0])
def test_a_difference_is_told_with_its_interval_its_p_value_and_the_verdict(rng, gain):
    base = rng.random(60)
    values = {"late": base + gain + 0.01 * rng.normal(size=60), "backbone": base}
    late, backbone = (
        ScoredSystem(name, "r", name, name, "", Measures({"ndcg_at_5": row[None]}), (None,), 4, 16.0, other)
        for (name, row), other in zip(values.items(), ("backbone: backbone", None), strict=True)
    )
    words = difference_words(compare_scored([late, backbone], None, StatisticsOptions())[late.key].to_backbone)
    assert words.startswith(f"{(values['late'] - base).mean():+.4f} [") and "in the family context" in words
    size = "(a true one of 0.00"  # the standard error is 0.01 / sqrt(60), the detectable difference some 2.8 times that
    assert words.endswith(": better") if gain else f": not distinguishable {size}" in words


def test_a_single_query_has_no_interval(encoder, tmp_path, monkeypatch, capsys):
    page, query = Page("p", "d", 1, "w1 w2", "h"), Query("q", "w1", "given", "d")
    single = Corpus(
        "one", "verbatim", 0, (page,), (query,), {"q": {"p": 1}}, {"d": "validation"}, lambda page, side: None
    )
    monkeypatch.setattr(data_options, "load_corpus", lambda data, **options: single)
    main([*arguments(encoder, tmp_path / "run"), "--against", str(encoder)])
    printed = capsys.readouterr().out
    assert "nDCG@5           1.0000, intervals over 1 single queries" in printed
    assert "difference       +0.0000 (a single query has no spread)" in printed
    assert read_records(tmp_path / "run" / "records.jsonl")[0].low is None


def test_bm25_is_a_line_or_a_sentence_says_why_it_is_not(corpus, encoder, tmp_path, monkeypatch, capsys):
    main(arguments(encoder, tmp_path / "run"))
    records = {(r.model, r.system, r.measure): r for r in read_records(tmp_path / "run" / "records.jsonl")}
    assert ("bm25", "text layer", "ndcg_at_5") in records and "BM25             " in capsys.readouterr().out
    blank = replace(corpus, pages=tuple(replace(page, text="") for page in corpus.pages))
    monkeypatch.setattr(data_options, "load_corpus", lambda data, **options: blank)
    folder = save_late(tmp_path / CLASSES[0], CLASSES[0])
    fixed = ["--model", str(folder), "--device", "cpu", "--store", str(tmp_path / "store")]
    main([*fixed, "--out", str(tmp_path / "scans")])
    assert "There is no BM25 over the text layer: it holds no word on any of the 24 pages." in capsys.readouterr().out
    assert "bm25" not in {record.model for record in read_records(tmp_path / "scans" / "records.jsonl")}


def test_bad_input_is_a_sentence(corpus, encoder, tmp_path, capsys):
    with pytest.raises(SystemExit, match="error: unknown model 'nothing'; there is: .*page-text-late"):
        main(["--model", "nothing", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match="error: unknown model 'nothing'"):
        main([*arguments(encoder, tmp_path / "run"), "--against", "nothing"])
    with pytest.raises(SystemExit, match="error: --pooling mean has no effect on page-text-late"):
        main(["--pooling", "mean", "--out", str(tmp_path / "run")])
    with pytest.raises(ValueError, match="k must be at least 1"):
        LateOptions(k=0)
    with pytest.raises(SystemExit):
        main(["--keep", "all"])  # it is --kept-tokens, as everywhere
    assert "Unrecognized" in capsys.readouterr().err


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("--against", "--stored-dtype", "--kept-tokens", "float16 takes half the", "--split", "--store"):
        assert words in printed
    assert "default: page-text-late" in printed
