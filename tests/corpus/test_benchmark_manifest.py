"""The manifests of ViDoRe's 22 public sets: pinned, whole, with the counts, metrics and prompts of mteb."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from miner_diag.corpus import CorpusError, load_corpus
from miner_diag.corpus.benchmark_manifest import (
    BY_LANGUAGE,
    SHARED,
    is_benchmark_manifest,
    read_benchmark_manifest,
)
from miner_diag.corpus.hub_manifest import is_hub_manifest
from miner_diag.corpus.manifest_file import manifest_folder
from miner_diag.hub import COMMIT

PATHS = [path for path in sorted(manifest_folder().glob("*.yaml")) if is_benchmark_manifest(path)]
MANIFESTS = [read_benchmark_manifest(path) for path in PATHS]


def of(benchmark):
    return [manifest for manifest in MANIFESTS if manifest.benchmark == benchmark]


def test_there_are_ten_four_and_eight_public_sets():
    counts = Counter(manifest.benchmark for manifest in MANIFESTS)
    assert counts == {"ViDoRe V1": 10, "ViDoRe V2": 4, "ViDoRe V3": 8}
    for values in zip(*((m.name, m.task, m.hub_id, m.revision) for m in MANIFESTS), strict=True):
        assert len(set(values)) == 22
    assert all(path.stem == manifest.name for path, manifest in zip(PATHS, MANIFESTS, strict=True))
    assert all(
        COMMIT.fullmatch(manifest.revision) and is_hub_manifest(path)
        for path, manifest in zip(PATHS, MANIFESTS, strict=True)
    )


def test_the_prompt_has_no_is_in_v1_and_v2_and_has_it_in_v3():
    without = {manifest.query_prompt for manifest in (*of("ViDoRe V1"), *of("ViDoRe V2"))}
    assert without == {"Find a screenshot that relevant to the user's question."}
    with_is = {manifest.query_prompt for manifest in of("ViDoRe V3")}
    assert with_is == {"Find a screenshot that is relevant to the user's question."}


def test_metrics_layouts_and_languages_are_those_of_each_benchmark():
    assert {(m.benchmark, m.metric, m.configs, m.licence) for m in MANIFESTS} == {
        ("ViDoRe V1", "ndcg_at_5", SHARED, "mit"),
        ("ViDoRe V2", "ndcg_at_5", SHARED, "mit"),
        ("ViDoRe V3", "ndcg_at_10", BY_LANGUAGE, "cc-by-4.0"),
    }
    assert Counter(len(manifest.languages) for manifest in MANIFESTS) == {1: 11, 4: 3, 6: 8}
    french = {m.name for m in MANIFESTS if m.languages == ("french",)}
    assert french == {"vidore-v1-tabfquad", "vidore-v1-shiftproject"}


def test_counts_are_those_that_the_sums_are_known_of():
    """Sums over mteb's statistics: pages with and without copies, queries and judgements of a language."""
    sums = {
        benchmark: [
            sum(getattr(m.counts, name) for m in of(benchmark))
            for name in ("pages", "pictures", "queries", "judgements")
        ]
        for benchmark in ("ViDoRe V1", "ViDoRe V2", "ViDoRe V3")
    }
    assert sums == {
        "ViDoRe V1": [6729, 6718, 3871, 3943],
        "ViDoRe V2": [4544, 4496, 327, 1772],
        "ViDoRe V3": [19252, 18994, 2419, 12336],
    }
    assert all(0 < m.counts.pictures <= m.counts.pages and m.counts.queries <= m.counts.judgements for m in MANIFESTS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("revision: bc7d", "revision: main-bc7d", "revision must match [0-9a-f]{40}"),
        ("source: hub", "source: shipped", "source must be hub; got 'shipped'"),
        ("hub_id: vidore/", "hub_id: ", "hub_id must match"),
        ("metric: ndcg_at_10", "metric: recall", "metric must be ndcg_at_5 or ndcg_at_10; got 'recall'"),
        ("LANGUAGE-corpus", "corpus", "configs must be ('queries', 'corpus', 'qrels') or ('LANGUAGE-queries',"),
        ("[french, spanish", "[french, french", "languages must be names in small letters, each once"),
        ("[french, spanish", "[../french, spanish", "languages must be names in small letters, each once"),
        ("  pages: 1110\n", "", "counts: BenchmarkCounts lacks the fields pages"),
        ("pages: 1110", "pages: many", "counts: pages must be a whole number"),
        ("licence: ", "colour: ", "BenchmarkManifest has unknown fields ['colour']"),
        ("split: test", "split: ../test", "split must match"),
    ],
)
def test_a_manifest_that_is_wrong_is_named(tmp_path, old, new, message):
    text = (manifest_folder() / "vidore-v3-hr.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "changed.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CorpusError, match=re.escape(message)):
        read_benchmark_manifest(path)


@pytest.mark.parametrize("name", ["vidore-v1-arxivqa", "vidore-v3-hr"])
def test_the_pinned_commit_is_asked_for_or_a_full_one_that_is_given(name, monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot_download(hub_id, *, revision, **_):
        asked.append((hub_id, revision))
        raise FileNotFoundError("no network here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    manifest = next(manifest for manifest in MANIFESTS if manifest.name == name)
    message = (
        rf"{name} \(\S+, commit \S+\) cannot be fetched: FileNotFoundError: .*hf download \S+ --repo-type dataset --re"
    )
    for given in (None, "1" * 40):
        with pytest.raises(CorpusError, match=message):
            load_corpus(name, data_revision=given)
    assert asked == [(manifest.hub_id, manifest.revision), (manifest.hub_id, "1" * 40)]
    with pytest.raises(
        CorpusError, match="data_revision must be a full commit hash, 40 hexadecimal digits; got 'main'"
    ):
        load_corpus(name, data_revision="main")
