"""All data sets of a benchmark by one name: each in a folder of its own, then averages over them."""

import json

import pandas as pd
import pytest

from miner_diag.corpus import CorpusError, benchmark, benchmark_sets
from miner_diag.corpus.benchmark_sets import benchmark_sets as sets_of
from miner_diag.evaluation.__main__ import main
from tests.corpus.benchmarks import LANGUAGES, shared_tables, write_benchmark, write_manifest

SETS = ("vidore-v2-one", "vidore-v2-two")


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Two data sets of a benchmark as copies in a folder, and their manifests."""
    manifests, folder, tables = tmp_path / "manifests", tmp_path / "vidore-v2", shared_tables()
    manifests.mkdir()
    for name in SETS:
        write_manifest(manifests / f"{name}.yaml", tables)
        write_benchmark(folder / name, tables)
    for module in (benchmark, benchmark_sets):
        monkeypatch.setattr(module, "manifest_folder", lambda: manifests)
    monkeypatch.setattr(benchmark_sets, "manifest_names", lambda: SETS)
    return folder


def run_file(path, page_of):
    """A run of every query: the page that is ranked first by query number of its language."""
    run = {str(number): {str(page_of[number % 4]): 1.0} for number in range(4 * len(LANGUAGES))}
    path.write_text(json.dumps(run))
    return path


def test_each_set_has_its_folder_and_the_averages_are_over_languages_then_sets(copies, tmp_path, capsys):
    right = run_file(tmp_path / "right.json", [0, 2, 5, 4])
    wrong = run_file(tmp_path / "wrong.json", [4, 4, 0, 0])
    out = tmp_path / "out"
    main(["--systems", str(right), str(wrong), "--data", str(copies), "--split", "test", "--out", str(out)])
    printed = capsys.readouterr().out
    scores, averages = pd.read_csv(out / "scores.csv"), pd.read_csv(out / "averages.csv")
    assert set(scores["data"]) == set(SETS) and set(scores["language"]) == set(LANGUAGES)
    for name in SETS:
        own = pd.read_csv(out / name / "scores.csv")
        pd.testing.assert_frame_equal(own, scores[scores["data"] == name].reset_index(drop=True))
        assert (out / name / "comparison.csv").is_file() and (out / name / "qrels.trec").is_file()
    main_rows = averages[averages["main"]].set_index("system")
    assert set(main_rows["metric"]) == {"ndcg_at_5"} and (main_rows["of_sets"] == 2).all()
    of_right, of_wrong = (main_rows[main_rows.index.str.contains(name)]["value"].item() for name in ("right", "wrong"))
    expected = scores[(scores["metric"] == "ndcg_at_5") & scores["system"].str.contains("right")]["value"].mean()
    assert of_right == pytest.approx(expected) and of_wrong == 0 < 0.5 < of_right
    assert "over the 2 public data sets of ViDoRe V2" in printed
    paper = pd.read_csv(out / "paper_table.csv")
    assert len(paper) == 9 and (paper[["backbone", "miner"]] == "not run here").all(axis=None)


def test_a_copy_that_lacks_a_set_is_refused_by_name(copies, tmp_path):
    (copies / SETS[1]).rename(tmp_path / "elsewhere")
    with pytest.raises(CorpusError, match="2 public data sets of vidore-v2; it lacks vidore-v2-two"):
        sets_of(str(copies))


def test_a_set_alone_is_no_benchmark(copies):
    assert sets_of(str(copies / SETS[0])) == () == sets_of("sample")
    assert [one.data for one in sets_of(str(copies))] == [str(copies / name) for name in SETS]
