"""The command from end to end: a fusion is fitted to a folder of PDFs, then evaluated there and elsewhere."""

from __future__ import annotations

import json
import re
import shutil
import sys
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from miner_diag.corpus import load_corpus
from miner_diag.evaluation.__main__ import main
from miner_diag.records import read_records
from miner_diag.retrieval import METRICS, metrics_of_run, read_qrels, read_run
from miner_diag.retrieval.trec import encoded_id
from tests.backbones.tiny import save_dual_encoder
from tests.corpus.files import write_table
from tests.damage import seal_again, seal_records

FILES = {
    "examples.html",
    "comparison.csv",
    "main_table.csv",
    "main_table.png",
    "main_table.svg",
    "ablation.png",
    "ablation.svg",
    "widths.csv",
    "folds.csv",
    "folds_together.csv",
    "folds.png",
    "folds.svg",
    "scores.csv",
    "qrels.trec",
    "runs",
    "records.jsonl",
    "run.json",
}
SYSTEMS = [
    "backbone",
    "whitened",
    "final_layer_vector",
    "final_layer_linear",
    "final_layer_head",
    "final_layer_mlp",
    "no_bias",
    "fusion_mrl",
    "miner",
    "trained_maps",
    "oracle_layer",
    "late",
    "text layer",
]


@pytest.fixture(scope="module")
def table(evaluated):
    return pd.read_csv(evaluated.out / "comparison.csv")


@pytest.fixture
def named(fitted, tmp_path):
    """The small retriever as it may be given by its folder alone: its files say how it pools."""
    folder = shutil.copytree(fitted.checkpoint, tmp_path / "named-bert")
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 32, "pooling_mode": "mean"}))
    return folder


def ends_with(arguments, capsys):
    """The sentence that the command ends with."""
    with pytest.raises((SystemExit, ValueError)) as ended:
        main(arguments)
    return f"{ended.value} {capsys.readouterr().err}"


@pytest.fixture
def no_forward(monkeypatch):
    """Any forward of a single-vector retriever fails."""
    from miner_diag.backbones.text_encoder import TextEncoder

    monkeypatch.setattr(TextEncoder, "embed_kept", lambda *args: pytest.fail("a forward"))


# --- on the fusion's own test documents


def test_it_writes_what_it_promises_and_nothing_else(evaluated):
    assert {path.name for path in evaluated.out.iterdir()} == FILES
    for picture in evaluated.out.glob("*.png"):
        assert len(np.unique(np.asarray(Image.open(picture).convert("L")))) > 20, picture


def test_every_saved_system_is_there_on_test_and_validation(table):
    test, validation = (table[table["split"] == split] for split in ("test", "validation"))
    assert set(test["system"]) == set(SYSTEMS) and len(test) == len(SYSTEMS)
    assert set(validation["system"]) == set(SYSTEMS) - {"oracle_layer", "late", "text layer"}
    assert (table["low"] <= table["ndcg_at_5"] + 1e-12).all() and (table["ndcg_at_5"] <= table["high"] + 1e-12).all()
    roles = test.set_index("system")["role"]
    assert (
        roles["miner"] == roles["trained_maps"] == "fusion"
        and roles["final_layer_mlp"] == "head"
        and roles["no_bias"] == "variant"
    )
    assert roles["oracle_layer"] == "bound" and roles["late"] == "late" and roles["whitened"] == "baseline"
    rows = test.set_index("system")
    for form in ("miner", "trained_maps"):
        assert rows.loc[form, "family"] == rows.loc[form, "head_family"] == "headline"
    assert rows.loc["late", "family"] == "context" and rows.loc["no_bias", "family"] == "ablation"
    assert rows.loc["text layer", "role"] == "lexical" and rows.loc["text layer", "family"] == "context"
    assert rows.loc["text layer", "model"] == "bm25" and rows.loc["text layer", "backbone"] == "small-bert"
    assert rows.loc["late", "model"] == "page-text-late" and rows.loc["late", "backbone"] == "small-bert"
    assert (test["n_documents"] >= test["effective_documents"]).all()


def test_means_are_those_of_the_records_and_seeds_are_told_apart(evaluated, table):
    records = pd.DataFrame([vars(record) for record in read_records(evaluated.out / "records.jsonl")])
    rows = records[records["query_id"].notna() & (records["split"] == "test") & (records["measure"] == "ndcg_at_5")]
    means = rows.groupby(["model", "system"])["value"].mean()
    test = table[table["split"] == "test"]
    for row in test.itertuples():
        assert means[row.model, row.system] == pytest.approx(row.ndcg_at_5, abs=1e-9)
    fusion = rows[rows["system"] == "miner"]
    assert set(fusion["seed"]) == {0, 1} and len(fusion) == 2 * fusion["query_id"].nunique()
    assert len(fusion) == 2 * evaluated.run["n_queries"]


def test_validation_rows_are_what_the_fusion_chose_by(fitted, table):
    seeds = pd.read_csv(fitted.fusion / "seeds.csv").groupby("system")["validation_ndcg_at_5"].mean()
    rows = table[table["split"] == "validation"].set_index("system")["ndcg_at_5"]
    for name in rows.index:
        assert rows[name] == pytest.approx(seeds[name], abs=1e-9)


def test_the_main_table_is_part_of_the_comparison(evaluated, table):
    main_table = pd.read_csv(evaluated.out / "main_table.csv")
    assert list(main_table["role"]) == ["backbone", "head", "fusion", "fusion", "late", "lexical"]
    test = table[table["split"] == "test"].set_index("system")
    for row in main_table.itertuples():
        assert (row.low, row.high) == (test.loc[row.system, "low"], test.loc[row.system, "high"])
    sizes = main_table.set_index("role")["bytes_per_page"]
    assert sizes["backbone"] == 4 * 32 < sizes["late"] and set(sizes["fusion"]) == {4 * 32}
    head = json.loads((evaluated.out.parent / "fusion" / "systems.json").read_text())["head"]
    assert main_table["system"][1] == head


def test_widths_start_with_the_whole_vector(evaluated, table):
    widths = pd.read_csv(evaluated.out / "widths.csv")
    assert set(widths["system"]) == {
        "backbone",
        "final_layer_vector",
        "final_layer_linear",
        "final_layer_head",
        "final_layer_mlp",
        "miner",
        "trained_maps",
        "fusion_mrl",
    }
    assert sorted(set(widths["width"])) == [4, 8, 16, 32]
    test = table[table["split"] == "test"].set_index("system")["ndcg_at_5"]
    for row in widths[widths["share"] == 1].itertuples():
        assert row.ndcg_at_5 == pytest.approx(test[row.system], abs=1e-9)


def test_document_splits_each_and_together(evaluated, table):
    folds, together = (pd.read_csv(evaluated.out / f"{name}.csv") for name in ("folds", "folds_together"))
    assert set(folds["fold"]) == {0, 1}
    chosen = folds[folds["chosen"]].groupby(["fold", "role"]).size()
    assert chosen.to_dict() == {(fold, role): n for fold in (0, 1) for role, n in (("fusion", 2), ("head", 1))}
    shared = [*set(folds.loc[folds["fold"] == 0, "system"]) & set(folds.loc[folds["fold"] == 1, "system"])]
    assert sorted(together["system"]) == sorted([*shared, "head"])
    assert list(together["system"][:2]) == ["backbone", "head"] and together["system"].iloc[-1] == "text layer"
    assert {"miner", "trained_maps"} == set(together.loc[together["role"] == "fusion", "system"])
    assert set(together["folds"]) == {"0 1"}
    assert (together["n_queries"] >= folds["n_queries"].max()).all()
    test = table[table["split"] == "test"].set_index("system")
    for row in folds[folds["fold"] == 0].itertuples():  # the split of the evaluation itself: the same numbers
        assert (row.ndcg_at_5, row.low, row.high) == tuple(test.loc[row.system, ["ndcg_at_5", "low", "high"]])
    bm25 = together.set_index("system").loc["text layer"]
    assert (bm25["model"], bm25["role"], bm25["backbone"], bm25["family"]) == (
        "bm25",
        "lexical",
        "small-bert",
        "context",
    )
    base = together["ndcg_at_5"][0]
    assert bm25["difference_to_backbone"] == pytest.approx(bm25["ndcg_at_5"] - base)
    assert bm25["difference_low"] <= bm25["difference_to_backbone"] <= bm25["difference_high"]
    assert list(folds.groupby("fold")["role"].last()) == ["lexical", "lexical"]
    said = rf"2 document splits together \(.*\), BM25 over the text layer reaches nDCG@5 {bm25['ndcg_at_5']:.4f} \["
    assert re.search(said, evaluated.printed)
    assert "on the test documents of 2 document splits together" in evaluated.printed
    assert "On the test documents of document split 1, miner reaches" in evaluated.printed


def test_every_reading_of_test_documents_is_noted(evaluated):
    reads = evaluated.run["test_reads"]
    assert [(read["model"], read["fold"]) for read in reads] == [
        ("small-bert", 0),
        ("small-bert", 1),
        ("page-text-late", 0),
    ]
    assert all(read["split"] == "test" and read["n_documents"] > 0 and read["at"] for read in reads)
    assert reads[0]["runs"] == [str(evaluated.out.parent / "fusion")] and reads[1]["runs"][0].endswith("fold-1")


def test_families_and_intervals_are_stated(evaluated):
    run, caption = evaluated.run, evaluated.run["caption"]
    assert run["families"] == {"headline": 4, "context": 3, "ablation": 12}  # 3 baselines and 3 heads, each twice
    assert caption in evaluated.printed and "headline (the fusion with its backbone and with its head" in caption
    assert f"over {run['n_documents']} documents (effective number {run['effective_documents']:.1f})" in caption
    assert f"{run['n_documents']} documents (effective {run['effective_documents']:.1f})" in evaluated.printed


def test_the_terminal_says_what_counts_and_what_comes_next(evaluated):
    for part in (
        "On the test split of handbooks, miner reaches",
        "On the test split of handbooks, trained_maps reaches",
        "Compared with final_layer_",
        "p Holm",
        "An oracle",
    ):
        assert part in evaluated.printed, part
    last = evaluated.printed.splitlines()[-1]
    assert last.startswith("next: python -m miner_diag.evaluation ") and "--data path/to/beir --split all" in last


def test_a_second_run_embeds_nothing_and_gives_the_same_bytes(evaluated, fitted, arguments, tmp_path, no_forward):
    main(arguments(tmp_path / "again", systems=[fitted.fusion, "page-text-late"]))
    runs = [path.relative_to(evaluated.out).as_posix() for path in (evaluated.out / "runs").iterdir()]
    tables = ("records.jsonl", "comparison.csv", "main_table.csv", "folds.csv", "widths.csv", "scores.csv")
    for name in (*tables, "examples.html", "qrels.trec", *runs):
        assert (tmp_path / "again" / name).read_bytes() == (evaluated.out / name).read_bytes(), name


def test_a_systems_row_does_not_depend_on_what_else_is_evaluated(evaluated, table, arguments, tmp_path):
    main(arguments(tmp_path / "alone", "--no-folds"))
    assert not (tmp_path / "alone" / "folds.csv").exists()
    alone = pd.read_csv(tmp_path / "alone" / "comparison.csv")
    columns = [c for c in alone.columns if c not in ("p_holm", "head_p_holm", "verdict", "head_verdict")]
    with_late = table[table["system"] != "late"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone[columns], with_late[columns], check_dtype=False)
    fusion, fusion_with_late = (t[(t["system"] == "miner") & (t["split"] == "test")] for t in (alone, table))
    assert fusion["p_holm"].item() == fusion_with_late["p_holm"].item()  # late interaction is in another family


def test_an_earlier_run_in_the_same_folder_leaves_nothing_behind(evaluated, fitted, named, arguments, tmp_path, capsys):
    out = shutil.copytree(evaluated.out, tmp_path / "there")
    main(arguments(out, systems=[named]))
    assert {path.name for path in out.iterdir()} == FILES - {
        "ablation.png",
        "ablation.svg",
        "folds.csv",
        "folds_together.csv",
        "folds.png",
        "folds.svg",
    }
    assert {path.name for path in (out / "runs").iterdir()} == {"named-bert-backbone.trec", "bm25-text-layer.trec"}
    other = shutil.copytree(fitted.fusion, tmp_path / "fusion")
    assert "is a run of miner_diag.fusion; expected one of miner_diag.evaluation" in ends_with(
        arguments(other, systems=[named]), capsys
    )


def test_two_runs_of_one_retriever_have_names_of_their_own(fitted, arguments, tmp_path):
    again = shutil.copytree(fitted.fusion, tmp_path / "other-fusion")
    main(arguments(tmp_path / "both", systems=[fitted.fusion, again]))
    table = pd.read_csv(tmp_path / "both" / "comparison.csv")
    test = table[table["split"] == "test"].set_index("system")
    assert test.index.is_unique and list(test.index).count("backbone") == 1
    for name in ("miner", "trained_maps", "final_layer_mlp", "oracle_layer"):
        one, other = test.loc[f"{name} (fusion)"], test.loc[f"{name} (other-fusion)"]
        assert (one["ndcg_at_5"], one["low"], one["p_value"]) == (
            other["ndcg_at_5"],
            other["low"],
            other["p_value"],
        ) or (np.isnan(one["p_value"]) and one["ndcg_at_5"] == other["ndcg_at_5"])
    main_table = pd.read_csv(tmp_path / "both" / "main_table.csv")
    assert list(main_table["role"]) == ["backbone", "head", "head", *["fusion"] * 4, "lexical"]
    together = pd.read_csv(tmp_path / "both" / "folds_together.csv")
    half = len(together) // 2
    for label, of_run in (("fusion", together[:half]), ("other-fusion", together[half:])):
        assert {"backbone", "text layer"} < set(of_run["system"])
        assert {f"{name} ({label})" for name in ("head", "miner", "trained_maps")} < set(of_run["system"])
        assert of_run["system"].str.endswith(f"({label})").sum() == half - 2


def test_one_retriever_that_is_loaded_in_two_ways_has_one_row(fitted, arguments, tmp_path, capsys):
    """Another device in the options that comes to the same one: the layers are the same, and so is the backbone."""
    again = shutil.copytree(fitted.fusion, tmp_path / "other-fusion")
    run = json.loads((again / "run.json").read_text())
    run["options"]["load"]["device"] = "auto"
    seal_again(again / "run.json", run)
    main(arguments(tmp_path / "both", "--no-folds", systems=[fitted.fusion, again]))
    table = pd.read_csv(tmp_path / "both" / "comparison.csv")
    test = table[table["split"] == "test"]
    assert set(test["model"]) == {"small-bert", "bm25"} and list(test["system"]).count("backbone") == 1
    assert {"miner", f"miner ({again})"} <= set(test["system"]) and len(test) == 2 * (len(SYSTEMS) - 3) + 2


def test_retrievers_by_name_are_compared_with_the_first(named, arguments, tmp_path, capsys):
    copy = shutil.copytree(named, tmp_path / "copied-bert")
    out = tmp_path / "out"
    main(arguments(out, systems=[named, copy, "page-text-late"]))
    assert "next: python -m miner_diag.evaluation" in capsys.readouterr().out
    table = pd.read_csv(out / "comparison.csv").set_index("model")
    assert list(table["role"]) == ["backbone", "backbone", "late", "lexical"]
    assert table.loc["copied-bert", "backbone"] == table.loc["page-text-late", "backbone"] == "named-bert"
    assert table.loc["copied-bert", "difference_to_backbone"] == 0 and table.loc["copied-bert", "p_value"] == 1
    assert set(table["family"].dropna()) == {"context"}
    assert len(pd.read_csv(out / "main_table.csv")) == 4


def test_a_dual_encoder_is_evaluated_by_its_final_embeddings(arguments, tmp_path):
    folder = save_dual_encoder(tmp_path / "tiny-clip", "clip")
    main(arguments(tmp_path / "out", "--limit", "40", systems=[folder]))
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert list(table["model"]) == ["tiny-clip", "bm25"] and list(table["role"]) == ["backbone", "lexical"]
    assert set(pd.read_csv(tmp_path / "out" / "widths.csv")["width"]) == {40, 20, 10, 5}
    assert table["bytes_per_page"][0] == 160  # the embedding's 40 coordinates, not the 48 of its layers


# --- the page of examples


def test_the_examples_are_of_the_fusion_that_is_handed_out(evaluated, fitted, arguments, tmp_path):
    assert evaluated.run["examples"] == ["small-bert: miner", "small-bert: backbone"]
    assert "examples.html shows the queries that gained and lost most from small-bert: backbone to" in evaluated.printed
    html = (evaluated.out / "examples.html").read_text(encoding="utf-8")
    assert "What changed from <bdi>small-bert: backbone</bdi> to <bdi>small-bert: miner</bdi>" in html
    assert "data:image/jpeg;base64," in html and "have no picture" not in html
    other = shutil.copytree(fitted.fusion, tmp_path / "other-fusion")
    run = json.loads((other / "run.json").read_text())
    seal_again(other / "run.json", run | {"form": "trained_maps"})
    main(arguments(tmp_path / "out", "--no-folds", systems=[other]))
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["examples"] == ["small-bert: trained_maps", "small-bert: backbone"]


# --- other metrics, and files of other tools


def test_every_system_has_every_metric_and_nothing_contradicts_the_comparison(evaluated, table):
    scores = pd.read_csv(evaluated.out / "scores.csv", keep_default_na=False)
    assert list(scores["metric"].unique()) == list(METRICS) and len(scores) == len(METRICS) * len(SYSTEMS)
    assert set(scores["language"]) == {""} and set(scores["n_queries"]) == {evaluated.run["n_queries"]}
    test = table[table["split"] == "test"]
    rows = scores[scores["metric"] == "ndcg_at_5"].set_index("system")
    for row in test.itertuples():
        mine = rows.loc[f"{row.model}: {row.system}", ["value", "low", "high"]].astype(float)
        np.testing.assert_allclose(mine, (row.ndcg_at_5, row.low, row.high), atol=1e-12)
    by_metric = scores.pivot(index="system", columns="metric", values="value").astype(float)
    assert (by_metric["recall_at_1"] <= by_metric["recall_at_5"]).all()
    assert (by_metric["recall_at_5"] <= by_metric["recall_at_10"]).all()
    assert (by_metric["mrr_at_10"] >= by_metric["recall_at_1"] - 1e-12).all()
    bound = by_metric.loc["small-bert: oracle_layer"]
    assert (by_metric.loc["small-bert: miner"] <= bound + 1e-12).all()


def test_records_hold_every_metric_and_what_ties_could_make_of_it(evaluated):
    records = pd.DataFrame([vars(r) for r in read_records(evaluated.out / "records.jsonl")])
    whole = records[(records["split"] == "test") & (records["system"] == "miner")]
    queries = whole[whole["query_id"].notna()]
    assert queries.groupby("measure").size().to_dict() == dict.fromkeys(METRICS, 2 * evaluated.run["n_queries"])
    scores = pd.read_csv(evaluated.out / "scores.csv").set_index(["system", "metric"])["value"]
    for metric, mean in queries.groupby("measure")["value"].mean().items():
        assert scores["small-bert: miner", metric] == pytest.approx(mean, abs=1e-12)
    of_bm25 = records["model"].eq("bm25") & records["split"].eq("test") & records["query_id"].isna()
    bm25 = records[of_bm25].set_index("measure")["value"]
    for metric in METRICS:
        assert bm25[f"{metric}_worst"] - 1e-12 <= bm25[metric] <= bm25[f"{metric}_best"] + 1e-12
        assert 0 <= bm25[f"{metric}_tie_rate"] <= 1


def test_other_tools_find_the_same_ndcg_in_the_files(evaluated):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    qrels, rankings = read_qrels(evaluated.out / "qrels.trec"), evaluated.run["rankings"]
    shown = pd.read_csv(evaluated.out / "main_table.csv")
    assert set(rankings) == set(shown["model"] + ": " + shown["system"])
    assert {"small-bert: backbone", "small-bert: miner"} <= set(rankings) < set(evaluated.run["systems"])
    records = [r for r in read_records(evaluated.out / "records.jsonl") if r.split == "test" and r.query_id]
    for key, name in rankings.items():
        run = read_run(evaluated.out / name)
        ours = metrics_of_run(qrels, run, ["ndcg_at_5"])["ndcg_at_5"]
        told = {
            encoded_id(r.query_id): r.value
            for r in records
            if f"{r.model}: {r.system}" == key and r.measure == "ndcg_at_5" and r.seed in (None, 0)
        }
        np.testing.assert_allclose(ours.values, [told[query_id] for query_id in ours.query_ids], atol=1e-12)
        with (evaluated.out / name).open() as lines:
            theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.5"}).evaluate(pytrec_eval.parse_run(lines))
        untied = [query_id for query_id, tied in zip(ours.query_ids, ours.order_matters, strict=True) if not tied]
        assert len(untied) > 40
        for query_id in untied:
            assert theirs[query_id]["ndcg_cut_5"] == pytest.approx(told[query_id], abs=1e-6)


def test_too_many_values_of_single_queries_are_left_out_and_told(named, arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("miner_diag.evaluation.run.MOST_ROWS", 10)
    main(arguments(tmp_path / "out", systems=[named]))
    n_rows = 2 * 60 * (len(METRICS) - 1)
    told = f"Of single queries records.jsonl holds nDCG@5 alone: the other metrics would be {n_rows:,} rows more."
    assert told in capsys.readouterr().out
    records = read_records(tmp_path / "out" / "records.jsonl")
    assert {r.measure for r in records if r.query_id is not None} == {"ndcg_at_5"}
    assert {r.measure for r in records} > set(METRICS)


def test_a_data_set_with_another_main_metric_is_compared_by_it(named, arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("miner_diag.evaluation.run.main_metric", lambda corpus: "ndcg_at_10")
    out = tmp_path / "out"
    main(arguments(out, systems=[named]))
    printed = capsys.readouterr().out
    assert "nDCG@10" in printed and "nDCG@5" not in printed
    for name in ("comparison", "main_table"):
        table = pd.read_csv(out / f"{name}.csv")
        assert "ndcg_at_10" in table and "ndcg_at_5" not in table
    scores = pd.read_csv(out / "scores.csv").set_index(["system", "metric"])["value"]
    assert table["ndcg_at_10"][0] == pytest.approx(scores["named-bert: backbone", "ndcg_at_10"])
    assert json.loads((out / "run.json").read_text())["metric"] == "ndcg_at_10"
    assert {r.measure for r in read_records(out / "records.jsonl") if r.query_id} == set(METRICS)


# --- run files of other systems


@pytest.fixture
def run_file(evaluated, tmp_path):
    """What the fusion's backbone ranked, as somebody else's file."""
    return shutil.copy(evaluated.out / "runs" / "small-bert-backbone.trec", tmp_path / "mine.trec")


def test_a_run_file_stands_beside_a_retriever_and_ties_with_itself(named, run_file, arguments, tmp_path, capsys):
    out = tmp_path / "out"
    main(arguments(out, systems=[named, run_file]))
    printed = capsys.readouterr().out
    table = pd.read_csv(out / "comparison.csv").set_index("model")
    assert list(table["role"]) == ["backbone", "run", "lexical"]
    row = table.loc["mine.trec"]
    assert (row["system"], row["backbone"], row["family"]) == ("run", "named-bert", "context")
    assert row["ndcg_at_5"] == pytest.approx(table.loc["named-bert", "ndcg_at_5"], abs=1e-12)
    assert row["p_value"] == 1 and row["verdict"] == "not distinguishable" and np.isnan(row["bytes_per_page"])
    assert f"mine.trec reaches nDCG@5 {row['ndcg_at_5']:.4f} [" in printed and "a difference of +0.0000" in printed
    assert list(pd.read_csv(out / "main_table.csv")["role"]) == ["backbone", "run", "lexical"]
    run = json.loads((out / "run.json").read_text())
    assert run["run_files"]["mine.trec"]["file"] == str(run_file) and len(run["run_files"]["mine.trec"]["sha256"]) == 64
    assert [read["model"] for read in run["test_reads"]] == ["named-bert", "mine.trec"]
    assert (out / "runs" / "mine.trec-run.trec").exists()


def test_two_run_files_need_no_retriever(run_file, arguments, tmp_path, capsys, no_forward):
    """One of them has lost a query and ranks the rest the other way round."""
    run = read_run(run_file)
    lost, *rest = run
    turned = {query_id: {page: -score for page, score in run[query_id].items()} for query_id in rest}
    (tmp_path / "after.json").write_text(json.dumps(turned))
    main(arguments(tmp_path / "out", systems=[run_file, tmp_path / "after.json"]))
    printed = capsys.readouterr().out
    assert f"after.json has no results for 1 of 60 queries, as {unquote(lost)}; they count 0." in printed
    table = pd.read_csv(tmp_path / "out" / "comparison.csv").set_index("model")
    assert list(table["role"]) == ["run", "run", "lexical"] and table.loc["after.json", "backbone"] == "mine.trec"
    assert table.loc["after.json", "verdict"] == "worse"
    expected = table.loc["after.json", "ndcg_at_5"] - table.loc["mine.trec", "ndcg_at_5"]
    assert table.loc["after.json", "difference_to_backbone"] == pytest.approx(expected)
    assert table.loc["after.json", "detectable"] > 0
    html = (tmp_path / "out" / "examples.html").read_text(encoding="utf-8")
    assert "What changed from <bdi>mine.trec: run</bdi> to <bdi>after.json: run</bdi>" in html
    assert "it has no results for this query." in html
    assert not (tmp_path / "out" / "widths.csv").exists()


def test_two_files_of_one_name_are_told_by_their_paths(run_file, arguments, tmp_path):
    other = tmp_path / "other" / "mine.trec"
    other.parent.mkdir()
    shutil.copy(run_file, other)
    main(arguments(tmp_path / "out", systems=[run_file, other]))
    assert list(pd.read_csv(tmp_path / "out" / "comparison.csv")["model"]) == [
        "mine.trec",
        f"mine.trec ({other})",
        "bm25",
    ]


def test_run_files_that_cannot_be_used_are_sentences(
    evaluated, run_file, named, arguments, tmp_path, capsys, no_forward
):
    def message(*systems, more=(), out="bad"):
        return ends_with(arguments(tmp_path / out, *more, systems=systems), capsys)

    assert "nowhere.trec is not there; name a run file, TREC" in message(tmp_path / "nowhere.trec")
    assert f"{str(run_file)!r} stands twice" in message(run_file, run_file)
    assert "--device has no effect: all systems are run files" in message(run_file, more=["--device", "cpu"])
    assert "--dtype has no effect: all systems are run files" in message(run_file, more=["--dtype", "float32"])
    (tmp_path / "other.trec").write_text("somebody-elses-query Q0 page 1 0.5 me\n")
    told = message(named, tmp_path / "other.trec")
    assert "names the query 'somebody-elses-query', which handbooks does not have (1 of 1 such ids)" in told
    own = shutil.copytree(evaluated.out, tmp_path / "own")
    assert "lies where this evaluation writes its own runs; choose another --out" in message(
        own / "runs" / "small-bert-miner.trec", out="own"
    )


# --- on other data


@pytest.fixture
def other_data(tmp_path):
    """A table in BEIR form whose pages nobody was fitted to: words of the handbooks, shuffled."""
    from tests.handbooks import WORDS

    rng = np.random.default_rng(5)
    pages = [" ".join(rng.permutation(WORDS)[:12]) for _ in range(48)]
    corpus = [{"_id": f"p{n}", "text": text, "doc": f"report-{n // 4}"} for n, text in enumerate(pages)]
    queries = [{"_id": f"q{n}", "text": " ".join(text.split()[:3])} for n, text in enumerate(pages)]
    qrels = [(f"q{n}", f"p{n}", "1") for n in range(48)]
    return write_table(tmp_path / "reports", queries, corpus, qrels)


def test_a_fusion_is_evaluated_on_data_that_it_was_not_fitted_to(other_data, arguments, tmp_path, capsys):
    out = tmp_path / "elsewhere"
    main(arguments(out, "--split", "all", data=other_data))
    table, run = pd.read_csv(out / "comparison.csv"), json.loads((out / "run.json").read_text())
    assert set(table["split"]) == {"all"} and set(table["data"]) == {"reports"}  # no validation rows: it is other data
    assert set(table["system"]) == set(SYSTEMS) - {"late"} and set(table["n_queries"]) == {48}
    assert set(table["n_documents"]) == {12}
    assert not (out / "folds.csv").exists()
    assert [(read["split"], read["fold"]) for read in run["test_reads"]] == [("all", 0)]
    assert "On the all split of reports, miner reaches" in capsys.readouterr().out


def test_names_of_documents_alone_are_a_caution(fitted, other_data, arguments, tmp_path, capsys):
    text = (other_data / "corpus.jsonl").read_text()
    seen = load_corpus(fitted.documents, queries="verbatim").split("train").pages[0].doc_id
    (other_data / "corpus.jsonl").write_text(text.replace('"report-0"', json.dumps(seen)))
    main(arguments(tmp_path / "named", "--split", "all", data=other_data))
    printed = capsys.readouterr().out
    assert f"1 documents of reports, as {seen}, have the names of documents of handbooks" in printed


# --- what is refused


@pytest.mark.parametrize(
    ("more", "split"),
    [(["--split", "all"], "train"), (["--split", "train"], "train"), (["--split", "validation"], "validation")],
)
def test_documents_that_it_was_fitted_to_are_refused(fitted, arguments, tmp_path, capsys, no_forward, more, split):
    message = ends_with(arguments(tmp_path / "leak", *more), capsys)
    assert f"error: {fitted.fusion} cannot be evaluated here, because it has seen these pages" in message
    assert f"stand in the {split} split that these systems were fitted to (handbooks, fold 0)" in message
    assert "measure on --split test with --fold 0, or on other data" in message
    assert not (tmp_path / "leak" / "run.json").exists()


def test_another_split_by_document_is_refused(arguments, tmp_path, capsys):
    assert "has seen these pages" in ends_with(arguments(tmp_path / "leak", "--fold", "1"), capsys)


def test_the_same_pages_under_another_name_are_refused(fitted, arguments, tmp_path, capsys):
    """A copy of the folder has another name, and so have its documents; the pages' pictures give them away."""
    copy = tmp_path / "renamed"
    copy.mkdir()
    for number, path in enumerate(sorted(fitted.documents.iterdir())):
        shutil.copy(path, copy / f"manual-{number}.pdf")
    message = ends_with(arguments(tmp_path / "leak", "--queries", "verbatim", "--split", "all", data=copy), capsys)
    assert "has seen these pages" in message and "pages of renamed (all, fold 0) stand in the train split" in message


def test_what_is_no_system_is_named(fitted, arguments, tmp_path, capsys):
    def message(*systems, more=()):
        return ends_with(arguments(tmp_path / "bad", *more, systems=systems), capsys)

    assert f"'{fitted.fusion}' stands twice" in message(fitted.fusion, fitted.fusion)
    missing = tmp_path / "nowhere"
    assert f"{missing} is not there; run python -m miner_diag.fusion --out {missing}" in message(missing)
    assert "unknown model 'nothing'" in message("nothing")
    probes = fitted.fusion / "probes"
    assert f"{probes} is a run of miner_diag.probes; expected one of miner_diag.fusion" in message(probes)
    half = shutil.copytree(fitted.fusion, tmp_path / "half")
    (half / "run.json").unlink()
    assert f"{half} holds no finished run (run.json is missing)" in message(half)
    assert "--stored-dtype float16 has no effect: none of the systems is a late-interaction" in message(
        fitted.fusion, more=["--stored-dtype", "float16"]
    )


def test_systems_of_another_backbone_are_refused(fitted, arguments, tmp_path, capsys):
    message = ends_with(arguments(tmp_path / "bad", "--dtype", "bfloat16"), capsys)
    assert (
        "holds systems of another backbone. Fields that differ: dtype: 'float32' there, 'bfloat16' asked for" in message
    )


def test_changed_files_are_refused(fitted, arguments, tmp_path, capsys):
    copy = shutil.copytree(fitted.fusion, tmp_path / "changed")
    name = next((copy / "systems").glob("miner-*.safetensors"))
    name.write_bytes(name.read_bytes()[:-4] + b"0000")
    message = ends_with(arguments(tmp_path / "bad", systems=[copy]), capsys)
    assert f"{name} is not the file that systems.json was written with" in message


def test_a_run_without_a_query_in_its_records_is_refused(fitted, arguments, tmp_path, capsys):
    copy = shutil.copytree(fitted.fusion, tmp_path / "short")
    lines = (copy / "records.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"query_id"' not in line or '"system":"no_bias"' not in line]
    (copy / "records.jsonl").write_text("".join(kept))
    seal_records(copy)
    message = ends_with(arguments(tmp_path / "bad", systems=[copy]), capsys)
    assert "records.jsonl must hold nDCG@5 of no_bias for each of the" in message
    (copy / "records.jsonl").write_text("".join(lines)[:-30])
    seal_records(copy)
    assert "records.jsonl is cut: its last line has no end" in ends_with(
        arguments(tmp_path / "bad", systems=[copy]), capsys
    )


def test_without_its_probes_there_is_no_oracle_and_a_line_says_so(fitted, arguments, tmp_path, capsys):
    copy = shutil.copytree(fitted.fusion, tmp_path / "alone")
    shutil.rmtree(copy / "probes")
    main(arguments(tmp_path / "out", "--no-folds", systems=[copy]))
    printed = capsys.readouterr().out
    assert f"{copy}: there is no oracle of layers, because its probes are not in {copy / 'probes'}." in printed
    assert "oracle_layer" not in set(pd.read_csv(tmp_path / "out" / "comparison.csv")["system"])


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for words in (
        "--systems",
        "--split",
        "--stored-dtype",
        "--no-folds",
        "--intervals-over",
        "--store",
        "compared with",
    ):
        assert words in printed, words
    for absent in ("--model ", "--pooling", "--split {test}"):
        assert absent not in printed


def test_importing_the_options_loads_no_model():
    """`--help` is quick: no checkpoint is read and transformers is not imported."""
    import subprocess

    code = "import sys, miner_diag.evaluation; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
