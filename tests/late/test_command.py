"""The command, end to end: a tiny checkpoint over a small corpus, beside its single-vector partner."""

import csv
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miner_diag.corpus.core import Corpus, Page, Query
from miner_diag.embeddings import job, open_store, open_token_store
from miner_diag.late import LateOptions, late_scores
from miner_diag.late.__main__ import main
from miner_diag.late.table import late_lines
from miner_diag.records import read_records
from miner_diag.retrieval import maxsim_scores, ndcg_at_k
from miner_diag.stats import Interval

HERE = Path(__file__)


def module(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


tiny = module("tiny_checkpoints", HERE.parents[1] / "backbones" / "conftest.py")
col = module("late_checkpoints", HERE.parents[1] / "backbones" / "late_checkpoints.py")


@pytest.fixture
def corpus(monkeypatch):
    """Eight documents of three pages; a query has a word of its page and one of the next."""
    rng = np.random.default_rng(5)
    words = [[f"w{n}" for n in rng.integers(0, 40, 12)] for _ in range(24)]
    pages = tuple(Page(f"p{n}", f"d{n // 3}", n % 3 + 1, " ".join(words[n]), f"h{n}") for n in range(24))
    queries = tuple(
        Query(f"q{n}", " ".join([words[n][0], words[(n + 1) % 24][0]]), "given", f"d{n // 3}") for n in range(24)
    )
    found = Corpus(
        name="tiny",
        form="verbatim",
        fold=0,
        pages=pages,
        queries=queries,
        qrels={f"q{n}": {f"p{n}": 1} for n in range(24)},
        splits={f"d{n}": "validation" for n in range(8)},
        renderer=lambda page_id, side: Image.new("RGB", (60 + 10 * int(page_id[1:]), 90), "white"),
    )
    monkeypatch.setattr(job, "load_corpus", lambda data, **options: found)
    return found


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tiny.save_tiny(tmp_path_factory.mktemp("m") / "tiny-bert", tiny.tiny_bert_config())
    return tiny.write_pipeline(folder, {"embedding_dimension": 32, "pooling_mode": "mean"})


def arguments(model, out):
    return ["--model", str(model), "--device", "cpu", "--reader", "text-layer", "--out", str(out)]


def test_writes_what_was_measured(corpus, encoder, tmp_path, capsys):
    main([*arguments(encoder, tmp_path / "run"), "--against", str(encoder)])
    told = capsys.readouterr().out
    out = tmp_path / "run"
    queries, pages = (open_token_store(out / "tokens" / side) for side in ("queries", "pages"))
    values = ndcg_at_k(maxsim_scores(queries.token_vectors, pages.token_vectors), np.arange(24))
    with (out / "ndcg_per_query.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["query_id"] for row in rows] == [f"q{n}" for n in range(24)]
    np.testing.assert_allclose([float(row["ndcg_at_5"]) for row in rows], values, atol=1e-6)
    records = {(r.model, r.measure): r for r in read_records(out / "records.jsonl") if r.query_id is None}
    mean = records["tiny-bert-late", "ndcg_at_5"]
    assert mean.value == pytest.approx(values.mean()) and mean.low < mean.value < mean.high
    assert (mean.n, mean.n_clusters, mean.method) == (24, 8, "bootstrap over documents")
    assert records["tiny-bert-late", "page_tokens_mean"].value == 12  # special tokens do not take part
    assert records["tiny-bert-late", "page_bytes_mean"].value == 12 * 32 * 4
    assert records["tiny-bert", "page_bytes_mean"].value == 32 * 4
    single = records["tiny-bert", "ndcg_at_5"]
    difference = records["tiny-bert-late", "ndcg_at_5_less_tiny-bert"]
    assert difference.value == pytest.approx(mean.value - single.value) and 0 < difference.p_value <= 1
    run = json.loads((out / "run.json").read_text())
    assert run["command"] == "miner_diag.late" and run["pages"]["tokens_total"] == 24 * 12
    assert run["backbone"]["kept_tokens"] == "text" and run["against"]["backbone"] == "tiny-bert"
    assert run["stored_dtype"] == "float32" and set(run["seconds_by_stage"]) >= {"extract", "maxsim", "against"}
    assert open_store(out / "against" / "pages").shape == (24, 4, 32)
    assert f"nDCG@5           {mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}], intervals over documents" in told
    assert "tokens per page  12.0 in the mean, 12 at most, 288 in all" in told
    assert "bytes per page   1536 in the mean, 1536 at most, 36864 in all (float32)" in told
    assert f"against tiny-bert: nDCG@5 {single.value:.4f}" in told and "(12 times fewer)" in told


def test_the_same_run_gives_the_same_numbers_from_the_store(corpus, encoder, tmp_path, capsys, monkeypatch):
    from miner_diag.backbones.late import LastLayerTokens

    main(arguments(encoder, tmp_path / "run"))
    first = capsys.readouterr().out.splitlines()[:-1]
    records = (tmp_path / "run" / "records.jsonl").read_bytes()
    monkeypatch.setattr(LastLayerTokens, "embed_tokens", lambda self, batch: pytest.fail("a forward"))
    main(arguments(encoder, tmp_path / "run"))
    assert capsys.readouterr().out.splitlines()[:-1] == first
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == records


def test_an_interval_does_not_depend_on_what_else_is_asked(corpus, encoder, tmp_path):
    options = LateOptions(model=str(encoder), device="cpu", reader="text-layer", out=tmp_path / "run")
    alone, compared = late_scores(options), late_scores(replace(options, against=str(encoder)))
    assert alone.partner is None and alone.interval == compared.interval


def test_more_special_tokens_and_half_precision_are_options(corpus, encoder, tmp_path, capsys):
    main([*arguments(encoder, tmp_path / "run"), "--keep", "all", "--stored-dtype", "float16", "--k", "3"])
    told = capsys.readouterr().out
    assert "nDCG@3" in told
    assert "tokens per page  14.0" in told and "bytes per page   896 in the mean" in told
    with pytest.raises(SystemExit, match="error: .*Fields that differ: stored_dtype: 'float16' there"):
        main([*arguments(encoder, tmp_path / "run"), "--keep", "all"])


def test_queries_find_their_pages_far_above_chance(corpus, encoder, tmp_path):
    """Words are all there is to see; a query shares one with its page. Chance is 0.12."""
    found = late_scores(LateOptions(model=str(encoder), device="cpu", reader="text-layer", out=tmp_path / "run"))
    assert found.interval.low > 0.3 and found.by_document


@pytest.mark.parametrize("architecture", col.CLASSES)
def test_a_picture_model_runs_by_its_configs_name(corpus, tmp_path, architecture, capsys):
    folder = col.save_late(tmp_path / architecture, architecture)
    main([*arguments(folder, tmp_path / "run"), "--limit", "9", "--intervals-over", "items"])
    told = capsys.readouterr().out
    assert f"{architecture} on tiny, validation, 9 pages" in told and "intervals over single queries" in told
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["backbone"]["architecture"] == architecture
    assert run["pages"]["tokens_mean"] >= 16 and run["pages"]["bytes_mean"] == run["pages"]["tokens_mean"] * 16 * 4


@pytest.mark.parametrize(
    ("low", "p_value", "verdict"), [(0.1, 0.04, ""), (-0.1, 0.04, ": not"), (0.1, 0.06, ": not"), (0.1, None, None)]
)
def test_a_difference_needs_both_its_interval_and_its_test(corpus, encoder, tmp_path, low, p_value, verdict):
    options = LateOptions(
        model=str(encoder), against=str(encoder), device="cpu", reader="text-layer", out=tmp_path / "run"
    )
    found = late_scores(options)
    difference = None if p_value is None else Interval(0.2, low, 0.3, 0.95, 24)
    partner = replace(found.partner, difference=difference, p_value=p_value)
    (told,) = [line for line in late_lines(replace(found, partner=partner)) if line.startswith("difference")] or [None]
    if verdict is None:
        assert told is None
    else:
        assert told.endswith(f"p {p_value}" + (f"{verdict} distinguishable" if verdict else ""))


def test_bad_input_is_a_sentence(corpus, encoder, tmp_path):
    with pytest.raises(SystemExit, match="error: unknown late-interaction model 'nothing'; there is: page-text-late"):
        main(["--model", "nothing", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="error: unknown model 'nothing'"):
        main([*arguments(encoder, tmp_path), "--against", "nothing"])
    for change, message in (({"k": 0}, "k must be at least 1"), ({"confidence": 1.0}, "confidence must be between")):
        with pytest.raises(ValueError, match=message):
            LateOptions(**change)


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for words in ("--against", "--stored-dtype", "--keep {all,text}", "float16 takes half the", "--split"):
        assert words in told
    assert "--pooling" not in told
