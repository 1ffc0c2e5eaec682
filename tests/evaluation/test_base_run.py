"""A base run is held against the public run of the same model, language by language."""

from types import SimpleNamespace

import pandas as pd
import pytest

from miner_diag.evaluation import base_run
from miner_diag.evaluation.base_run import mark_bases, with_published


def published(*rows):
    columns = ["model", "kind", "data", "language", "metric", "value"]
    more = {"benchmark": "ViDoRe(v2)", "protocol": "mteb 2.13.1; dataset rev x", "source": "results"}
    return pd.DataFrame([dict(zip(columns, row, strict=True)) | more for row in rows])


@pytest.fixture
def public(monkeypatch):
    table = published(
        ("jinaai/jina-embeddings-v4", "single", "Task", "french", "ndcg@5", 50.0),
        ("jinaai/jina-embeddings-v4", "single", "Task", "english", "ndcg@5", 60.0),
        ("jinaai/jina-embeddings-v4", "multi", "Task", "french", "ndcg@5", 70.0),
    )
    monkeypatch.setattr(base_run, "read_published", lambda: table)


CORPUS = SimpleNamespace(name="set", benchmark=SimpleNamespace(task="Task", metric="ndcg_at_5"))


def system(model="jina-embeddings-v4", name="backbone", role="backbone"):
    return SimpleNamespace(model=model, name=name, role=role, key=f"{model}: {name}")


def table_of(key, french, english):
    rows = [("french", "ndcg_at_5", french), ("english", "ndcg_at_5", english), ("french", "recall_at_5", 0.9)]
    columns = ["language", "metric", "value"]
    return pd.DataFrame([{"system": key} | dict(zip(columns, row, strict=True)) for row in rows])


@pytest.mark.parametrize(
    ("french", "english", "verdict"),
    [(0.504, 0.604, "reproduced"), (0.52, 0.59, "reproduced"), (0.48, 0.60, "not reproduced")],
)
def test_the_distance_is_in_points_and_its_mean_decides(public, french, english, verdict):
    base = system()
    scores, (run,) = with_published(table_of(base.key, french, english), [base], CORPUS)
    assert scores["published"].tolist()[:2] == [50.0, 60.0] and pd.isna(scores["published"].iloc[2])
    assert scores["distance"].tolist()[:2] == pytest.approx([100 * french - 50, 100 * english - 60])
    assert run.verdict == verdict and run.distance == pytest.approx(50 * (french + english) - 55)
    assert f"the base is {verdict}" in run.sentence("set") and "published, not run here" in run.sentence("set")
    assert ("--protocol mteb" in run.sentence("set")) is (verdict == "not reproduced")


def test_only_unmodified_models_are_held_against_public_runs(public):
    others = [
        system(name="miner", role="fusion"),
        system("page-text"),
        system("jina-embeddings-v4-late", "late", "late"),
    ]
    for other in others[:2]:
        scores, bases = with_published(table_of(other.key, 0.5, 0.6), [other], CORPUS)
        assert scores["published"].isna().all() and not bases


def test_other_data_have_no_such_columns(public):
    corpus, base = SimpleNamespace(name="sample", benchmark=None), system()
    scores, bases = with_published(table_of(base.key, 0.5, 0.6), [base], corpus)
    assert "published" not in scores and not bases
    assert "base_run" not in mark_bases(pd.DataFrame({"model": ["m"], "backbone": [None]}), bases)


def test_every_row_on_a_base_is_marked(public):
    base = system()
    _, bases = with_published(table_of(base.key, 0.40, 0.60), [base], CORPUS)
    table = pd.DataFrame({"model": [base.model, base.model, "other"], "backbone": [None, base.model, None]})
    assert mark_bases(table, bases)["base_run"].fillna("").tolist() == ["not reproduced", "not reproduced", ""]


def test_a_data_set_in_one_language_has_one_score_whatever_it_is_called(monkeypatch):
    one = published(("jinaai/jina-embeddings-v4", "single", "Task", "default", "ndcg@5", 50.0))
    monkeypatch.setattr(base_run, "read_published", lambda: one)
    scores, (run,) = with_published(table_of(system().key, 0.51, 0.0).iloc[:1], [system()], CORPUS)
    assert scores["published"].item() == 50.0 and run.distance == pytest.approx(1.0)
