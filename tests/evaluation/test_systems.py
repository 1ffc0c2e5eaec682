"""Saved systems are scored as they were fitted, and a gain is found where one was planted, and only there."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from miner_diag.backbones.known import TASKS_WORDS
from miner_diag.corpus import Benchmark
from miner_diag.evaluation import EvaluationError
from miner_diag.evaluation.oracle import oracle_values, read_layer_probes
from miner_diag.evaluation.scored_system import compare_scored
from miner_diag.evaluation.systems import (
    backbone_widths,
    final_embeddings,
    read_sources,
    refuse_leakage,
    run_labels,
    score_backbone,
    score_oracle,
    score_run,
    with_words_of,
)
from miner_diag.fusion import (
    FittedTo,
    Fusion,
    FusionConfig,
    FusionTrainOptions,
    MaskOptions,
    Materials,
    TuningOptions,
    best_head,
    chosen_rows,
    encode,
    save_systems,
    tune_all,
)
from miner_diag.fusion.miner_building import MinerOptions, fit_miner_parts
from miner_diag.fusion.top_p import TopPOptions
from miner_diag.probes import KINDS, FittedProbes, ProbeError, ProbeTrainOptions, fit_probes, salience
from miner_diag.probes.gate_probes import GateProbeOptions
from miner_diag.retrieval import chance_ndcg, ndcg_at_k, score_all
from miner_diag.sealed import sealed
from miner_diag.stats import StatisticsOptions
from tests.damage import seal_again
from tests.evaluation.helpers import small_corpus
from tests.fusion.helpers import KEY, D, L, make_probes, plant, small_data

TRAINING = FusionTrainOptions(
    epochs=9, batch_size=100, learning_rate=5e-3, weight_learning_rate=5e-2, temperature=0.1, patience=9
)
MINER = MinerOptions(probes=GateProbeOptions(epochs=4, batch_size=50), mask=TopPOptions(floor=4))
PROBES = ProbeTrainOptions(
    start="identity", learning_rate=3e-3, temperature=0.1, batch_size=100, epochs=6, to_final=0.0, gate_l1=0.0
)


def pretend_embedded(data, relevance=None):
    """What a backbone's row needs, made of arrays."""

    def store(vectors, side):
        ids = [f"{side}{row}" for row in range(len(vectors))]
        return SimpleNamespace(shape=vectors.shape, ids=ids, layer=lambda layer: vectors[:, layer])

    pairs = data.relevance if relevance is None else relevance
    qrels = {f"q{q}": {f"p{p}": 1} for q, p in zip(pairs.query, pairs.page, strict=True)}
    shapes = {"query": data.queries.shape[1:], "page": data.pages.shape[1:]}
    return SimpleNamespace(
        backbone=SimpleNamespace(name="planted", revision="1", layer_shape=shapes.get),
        corpus=SimpleNamespace(qrels=qrels, ignore_self=False),
        stores=SimpleNamespace(queries=store(data.queries, "q"), pages=store(data.pages, "p")),
    )


def fit_and_save(data, folder):
    """Backbone, heads and fusion, fitted to planted layers, with probes of layers 1 and 4."""
    first = fit_probes(data.train, data.validation, PROBES)
    scores = first.ndcg.mean(axis=2)
    kinds = tuple(KINDS[kind] for kind in scores.argmax(axis=0))
    probes = FittedProbes(first.stack, scores, np.stack(salience(first.stack, data.train)), kinds, (1, 4), (None,) * L)
    rows = [row for row in chosen_rows(("default",)) if row.name != "whitened"]
    parts = fit_miner_parts(data.train, data.validation, MINER, layers=(1, L - 1))
    materials = Materials(probes, data.train, FusionConfig(start="identity", inner_weight=0.0), MaskOptions(), parts)
    trained = tune_all(rows, materials, data.validation, TRAINING, TuningOptions(n_seeds=2, rate_scales=(1.0,)))
    save_systems(folder, trained, KEY, best_head(trained))
    return trained, probes


@pytest.fixture(scope="module", params=[True, False], ids=["planted", "noise"])
def scored(request, one_thread, tmp_path_factory):
    """A fusion run over layers of which an inner one carries what the final one lacks, or over noise."""
    data, folder = plant(inner=request.param), tmp_path_factory.mktemp("fusion")
    trained, probes = fit_and_save(data, folder)
    backbone = score_backbone(pretend_embedded(data.test), "planted")
    run = score_run(folder, data.test, backbone, KEY)
    return SimpleNamespace(
        inner=request.param, folder=folder, data=data, trained=trained, probes=probes, backbone=backbone, run=run
    )


def test_scores_are_those_of_the_trained_systems_under_exact_search(scored):
    by_name = {system.name: system for system in scored.run.systems}
    assert list(by_name) == [system.name for system in scored.trained if system.role != "backbone"]
    for system in scored.trained:
        if system.role == "backbone":
            continue
        vectors = [encode(run.system, scored.data.test) for run in system.runs]
        expected = [ndcg_at_k(score_all(*sides), scored.data.test.relevance) for sides in vectors]
        np.testing.assert_array_equal(by_name[system.name].ndcg, expected)
        assert by_name[system.name].seeds == system.seeds and by_name[system.name].role == system.role


def test_the_backbones_row_is_that_of_its_saved_system(scored):
    queries, pages = encode(Fusion.identity(L, D), scored.data.test)
    expected = ndcg_at_k(score_all(queries, pages), scored.data.test.relevance)
    np.testing.assert_allclose(scored.backbone.ndcg[0], expected, atol=1e-6)
    assert scored.backbone.bytes_per_page == 4 * D and scored.backbone.key == "planted: backbone"


def test_everything_is_compared_with_the_backbone_and_the_head_that_validation_likes(scored):
    head = best_head(scored.trained)
    for system in scored.run.systems:
        assert system.backbone == "planted: backbone"
        assert system.head == (None if system.name == head else f"planted: {head}")


@pytest.mark.parametrize("form", ["miner", "trained_maps"])
def test_what_was_planted_is_found_and_nothing_else(scored, form):
    systems = [scored.backbone, *scored.run.systems]
    fusion = compare_scored(systems, None, StatisticsOptions())[f"planted: {form}"]
    if scored.inner:
        assert (fusion.verdict, fusion.verdict_to_head) == ("better", "better")
        assert fusion.to_head.interval.low > 0.1
    else:
        assert fusion.verdict_to_head != "better" and abs(fusion.to_backbone.value) < 0.05


def test_a_label_is_part_of_every_name(scored):
    run = score_run(scored.folder, scored.data.test, scored.backbone, KEY, label="b", widths=False)
    assert [system.name for system in run.systems] == [f"{system.name} (b)" for system in scored.run.systems]
    assert run.widths == () != scored.run.widths
    assert {system.head for system in run.systems if system.role == "fusion"} == {
        f"planted: {best_head(scored.trained)} (b)"
    }


def test_widths_are_of_leading_coordinates_made_unit(scored):
    rows = [row for row in scored.run.widths if row["system"] == "miner"]
    assert [(row["width"], row["share"], row["n_seeds"]) for row in rows] == [
        (16, 1.0, 2),
        (8, 0.5, 2),
        (4, 0.25, 2),
        (2, 0.125, 2),
    ]
    fusion = next(system for system in scored.trained if system.name == "miner")
    half = []
    for run in fusion.runs:
        queries, pages = encode(run.system, scored.data.test)
        half.append(ndcg_at_k(score_all(queries[:, :8], pages[:, :8]), scored.data.test.relevance).mean())
    assert rows[1]["ndcg_at_5"] == pytest.approx(np.mean(half), abs=1e-12)


def test_a_vector_whose_leading_coordinates_are_zero_scores_by_chance(one_thread):
    data = small_data(np.random.default_rng(0))
    data.queries[:, -1, : D // 2] = 0
    rows = backbone_widths(pretend_embedded(data), "m")
    assert rows[0]["ndcg_at_5"] > 0.2
    assert rows[1]["ndcg_at_5"] == pytest.approx(chance_ndcg(50))  # fifty pages, all tied


# --- the oracle


def test_the_oracle_is_the_best_of_layers_and_fusion_for_each_query(one_thread, rng):
    data, probes, fusion = small_data(rng), make_probes(), rng.random((3, 40))
    layer_probes = [probes.stack.probe(layer, kind) for layer, kind in enumerate(probes.kinds)]
    best = oracle_values(layer_probes, data, {"ndcg_at_5": fusion})["ndcg_at_5"]
    layers = [
        ndcg_at_k(
            score_all(
                probe.apply(data.queries[:, probe.layer], "query"), probe.apply(data.pages[:, probe.layer], "page")
            ),
            data.relevance,
        )
        for probe in layer_probes
    ]
    np.testing.assert_allclose(best, np.max([*layers, fusion.mean(axis=0)], axis=0)[None])
    assert best.mean() >= max(layer.mean() for layer in layers)


def test_the_oracles_row_is_a_bound_that_is_compared_with_nothing(scored, tmp_path):
    replace(scored.probes.stack, backbone=KEY).save(tmp_path / "probes.safetensors")
    seal_again(tmp_path / "selection.json", {"chosen_kinds_of_all_layers": list(scored.probes.kinds)})
    fusion = scored.run.systems[-1]
    bound = score_oracle(tmp_path, scored.data.test, fusion, KEY, label="b")
    assert (bound.name, bound.role, bound.backbone, bound.head) == ("oracle_layer (b)", "bound", None, None)
    assert (bound.ndcg >= fusion.ndcg.mean(axis=0) - 1e-12).all() and bound.ndcg.shape == (1, 200)


def test_probes_that_do_not_fit_are_refused(tmp_path):
    stack = make_probes().stack
    with pytest.raises(ProbeError, match="probes.safetensors is not there"):
        read_layer_probes(tmp_path, KEY)
    stack.save(tmp_path / "probes.safetensors")
    with pytest.raises(ProbeError, match="probes of another backbone. Fields that differ: revision"):
        read_layer_probes(tmp_path, KEY | {"revision": "2"})
    with pytest.raises(EvaluationError, match="selection.json is not there; start python -m miner_diag.probes again"):
        read_layer_probes(tmp_path, KEY)
    for text, message in (
        ("{", "selection.json is damaged"),
        ("{}", "selection.json is damaged"),
        (json.dumps({"chosen_kinds_of_all_layers": ["base"]}), "must name a kind of probe for each of 5 layers"),
    ):
        (tmp_path / "selection.json").write_text(text if text == "{" else json.dumps(sealed(json.loads(text))))
        with pytest.raises(EvaluationError, match=message):
            read_layer_probes(tmp_path, KEY)


# --- names, spaces, leakage


def test_labels_are_the_shortest_ends_that_differ(tmp_path):
    a, b = tmp_path / "one" / "fusion", tmp_path / "two" / "fusion"
    assert run_labels([]) == [] and run_labels([a]) == [""]
    assert run_labels([a, b]) == ["one/fusion", "two/fusion"]
    assert run_labels([a, tmp_path / "other"]) == ["fusion", "other"]
    with pytest.raises(EvaluationError, match="each fusion run once"):
        run_labels([a, tmp_path / "one" / ".." / "one" / "fusion"])


def test_halves_of_a_dual_encoder_share_the_narrower_space(rng):
    data = small_data(rng)
    wide = np.concatenate([data.pages, np.zeros_like(data.pages)], axis=2)
    embedded = pretend_embedded(data)
    embedded.stores.pages = SimpleNamespace(
        shape=wide.shape, ids=embedded.stores.pages.ids, layer=lambda layer: wide[:, layer]
    )
    embedded.backbone.layer_shape = {"query": data.queries.shape[1:], "page": wide.shape[1:]}.get
    assert [side.shape for side in final_embeddings(embedded)] == [(40, D), (50, D)]
    np.testing.assert_array_equal(score_backbone(embedded, "m").ndcg, score_backbone(pretend_embedded(data), "m").ndcg)
    wide[3, -1, -1] = 1.0
    with pytest.raises(EvaluationError, match="planted have 16 coordinates for queries and 32 for pages"):
        final_embeddings(embedded)


@pytest.mark.parametrize("what", ["document", "page"])
def test_one_shared_document_or_page_is_enough_to_refuse(what):
    corpus = small_corpus()
    none = {"train": (), "validation": ()}
    clean = FittedTo(
        "planted", "hidden", 0, {"train": ("x",), "validation": ("y",)}, {"train": ("z",), "validation": ()}
    )
    refuse_leakage("runs/fusion", clean, corpus)
    leaking = (
        FittedTo("planted", "hidden", 0, none | {"validation": ("d3",)}, none)
        if what == "document"
        else FittedTo("another", "hidden", 0, none, none | {"train": ("h7",)})
    )
    with pytest.raises(EvaluationError, match="runs/fusion cannot be evaluated here, because it has seen these pages"):
        refuse_leakage("runs/fusion", leaking, corpus)


GME, EAGER = "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", "eagerworks/eager-embed-v1"
V1_TASK = Benchmark("ViDoRe V1", "VidoreArxivQARetrieval", "ndcg_at_5", "Find a screenshot that relevant to it.")


def test_a_protocol_is_of_retrievers_by_name_whose_manifest_names_a_difference(tmp_path):
    run_file = tmp_path / "mine.json"
    run_file.write_text("{}")
    sources = read_sources([EAGER, "page-text", str(run_file)], protocol="mteb")
    assert [source.load and source.load.protocol for source in sources] == ["mteb", "authors", None]
    with pytest.raises(EvaluationError, match="--protocol mteb has no effect: it changes retrievers that are given by"):
        read_sources(["page-text", str(run_file)], protocol="mteb")


def test_a_tasks_own_words_stand_before_a_query_only_where_the_protocol_puts_them_there():
    def words(model, protocol, benchmark):
        (source,) = with_words_of(read_sources([model], protocol=protocol), benchmark)
        return source.load.query_prompt

    assert words(GME, "mteb", V1_TASK) == V1_TASK.query_prompt
    assert words(GME, "mteb", None) is None, "those of its manifest, which are ViDoRe V3's"
    assert words(GME, "mteb", replace(V1_TASK, query_prompt=TASKS_WORDS)) is None
    assert words(GME, "authors", V1_TASK) is None
    assert words(EAGER, "mteb", V1_TASK) is None, "its words are its own under both protocols"
