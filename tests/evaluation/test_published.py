"""Published numbers are those of their sources, labelled, and only comparable runs are compared with."""

import pandas as pd
import pytest
import yaml

from miner_diag.corpus.manifest_file import manifest_folder
from miner_diag.evaluation import published
from miner_diag.evaluation.compare import EvaluationError
from miner_diag.evaluation.published import paper_averages, published_run, read_published


@pytest.fixture(scope="module")
def scores():
    return read_published()


def test_the_file_is_what_its_manifest_says(scores):
    stated = yaml.safe_load((manifest_folder() / "published" / "scores.yaml").read_text())
    assert len(scores) == stated["rows"] and list(scores.columns) == stated["columns"]
    assert scores["value"].between(0, 100).all() and scores["source"].str.len().min() > 10
    assert set(scores["metric"]) == {"ndcg@5", "ndcg@10"}


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "published"
    folder.mkdir()
    for path in (manifest_folder() / "published").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(published, "manifest_folder", lambda: tmp_path)
    assert len(read_published()) > 9000
    packed = bytearray((folder / "scores.csv.gz").read_bytes())
    packed[1000] ^= 1
    (folder / "scores.csv.gz").write_bytes(packed)
    with pytest.raises(EvaluationError, match="scores.csv.gz is damaged: its sha256 is"):
        read_published()
    (folder / "scores.csv.gz").unlink()
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_published()


def test_the_papers_averages_are_the_nine_that_its_authors_show(scores):
    table = paper_averages(scores).set_index(["model", "benchmark"])
    jina, eager, moca = "jinaai/jina-embeddings-v4", "eagerworks/eager-embed-v1", "moca-embed/MoCa-Qwen25VL-3B"
    expected = {
        (jina, "ViDoRe(v1)"): (84.3, 84.4),
        (jina, "ViDoRe(v2)"): (53.3, 55.2),
        (jina, "ViDoRe(v3)"): (49.0, 49.7),
        (eager, "ViDoRe(v1)"): (82.5, 84.8),
        (eager, "ViDoRe(v2)"): (56.0, 58.5),
        (eager, "ViDoRe(v3)"): (47.6, 48.8),
        (moca, "ViDoRe(v1)"): (85.7, 85.6),
        (moca, "ViDoRe(v2)"): (58.3, 59.1),
        (moca, "ViDoRe(v3)"): (49.1, 49.5),
    }
    assert len(table) == len(expected)
    for key, values in expected.items():
        assert tuple(table.loc[key, ["published_backbone", "published_miner"]]) == values
    assert set(table.loc[(slice(None), "ViDoRe(v3)"), "metric"]) == {"ndcg@10"}
    rise = table["published_miner"] / table["published_backbone"] - 1
    assert rise.idxmax() == (eager, "ViDoRe(v2)") and rise.max() == pytest.approx(0.0446, abs=1e-4)
    assert (rise > 0).sum() == 8


def rows(*given):
    columns = ["language", "value", "protocol", "source"]
    fixed = {"model": "a/b", "kind": "single", "benchmark": "ViDoRe(v2)", "data": "T", "metric": "ndcg@5"}
    return pd.DataFrame([fixed | dict(zip(columns, row, strict=True)) for row in given])


def test_the_newest_run_of_mteb_is_taken_and_no_other():
    table = rows(
        ("french", 1.0, "mteb 2.9.1; dataset rev x", "old"),
        ("french", 2.0, "mteb 2.13.1; dataset rev x", "new"),
        ("english", 3.0, "mteb 2.13.1; dataset rev x", "new"),
        ("mean of 2", 2.5, "mteb 2.13.1; dataset rev x", "new"),
        ("french", 9.0, "mteb 2.13.2; dataset rev x; experiment width_64", "other settings"),
        ("french", 9.0, "authors' run", "card"),
    )
    run = published_run(table, "a/b", "T", "ndcg_at_5")
    assert run.by_language == {"french": 2.0, "english": 3.0}
    assert (run.source, run.protocol) == ("new", "mteb 2.13.1; dataset rev x")
    for other in (("a/c", "T", "ndcg_at_5"), ("a/b", "U", "ndcg_at_5"), ("a/b", "T", "ndcg_at_10")):
        assert published_run(table, *other) is None
    assert published_run(table, "a/b", "T", "ndcg_at_5", kind="multi") is None


def test_languages_of_two_runs_are_not_mixed():
    table = rows(("french", 1.0, "mteb 2.9.1", "first file"), ("english", 2.0, "mteb 2.9.1", "second file"))
    assert published_run(table, "a/b", "T", "ndcg_at_5").by_language == {"english": 2.0}


def test_a_public_run_of_a_papers_backbone_lies_above_the_papers_own_baseline(scores):
    """Eager's public run on V2 has 57.20, the paper's own baseline 56.0: a base has to be run before a gain counts."""
    tasks = scores.loc[scores["benchmark"].eq("ViDoRe(v2)") & scores["data"].ne("average"), "data"].unique()
    runs = [published_run(scores, "eagerworks/eager-embed-v1", task, "ndcg_at_5") for task in tasks]
    means = [sum(run.by_language.values()) / len(run.by_language) for run in runs]
    assert len(means) == 4 and sum(means) / 4 == pytest.approx(57.20, abs=0.005)
