"""The card says what was fitted, measured and licensed, and nothing that a name smuggles in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from miner_diag.backbones.licences import licence_of
from miner_diag.records import read_records
from miner_diag.serving import FusedRetriever, ServingError
from miner_diag.serving.hub_folder import write_hub_folder
from miner_diag.serving.model_card import cell, model_card, scores_of
from tests.evaluation.conftest import arguments, evaluated
from tests.serving.made import SYSTEMS, fusion, served

__all__ = ["arguments", "evaluated"]


def header_of(card):
    """The hub's header, as a hub reads it, and the text behind it."""
    _, header, text = card.split("---\n", 2)
    return yaml.safe_load(header), text


def test_a_card_has_the_scores_of_an_evaluation_with_their_intervals(retriever, evaluated, tmp_path):
    write_hub_folder(retriever, tmp_path, [evaluated.out])
    header, text = header_of((tmp_path / "README.md").read_text())
    assert header["library_name"] == "miner_diag" and "sentence-transformers" in header["tags"]
    records = read_records(evaluated.out / "records.jsonl")
    assert any("(document split 1)" in record.split for record in records)  # systems fitted to other documents
    means = [record for record in records if record.query_id is None and record.split == "test"]
    for system in ("backbone", retriever.system_name):
        (mean,) = [r for r in means if r.measure == "ndcg_at_5" and r.system == system and r.model == "small-bert"]
        assert f"| {cell(system)} | {mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}] |" in text
        assert f"| {mean.n} | {mean.n_clusters} |" in text
    (less,) = [r for r in means if r.measure == "ndcg_at_5_less_backbone" and r.system == retriever.system_name]
    assert f"{less.value:.3f} [{less.low:.3f}, {less.high:.3f}]" in text
    assert "95 % intervals" in text and "document split" not in text
    n_documents = len(retriever.fitted_to.documents["train"])
    assert f"Fitted to handbooks (queries verbatim, split 0 by document): {n_documents} documents" in text
    assert "| backbone, small-bert | not known to the package; ask its owner" in text
    assert FusedRetriever.from_pretrained(tmp_path).fingerprint == retriever.fingerprint


def test_a_card_without_an_evaluation_says_so(load):
    card = model_card(served(load(), fusion()))
    assert "None were given. Measure it on your own pages" in card and "Nothing was fitted." in card


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_has_a_card(name, load):
    header, text = header_of(model_card(served(load(), SYSTEMS[name]())))
    assert header["pipeline_tag"] == "sentence-similarity" and "# small-bert-made" in text


def test_an_evaluation_of_something_else_is_refused(retriever, evaluated, load):
    records = read_records(evaluated.out / "records.jsonl")
    with pytest.raises(ServingError, match="somewhere did not measure the system made of small-bert"):
        scores_of(served(load(), fusion()), records, "somewhere")
    other = [replace(record, model_revision="sha256:other") for record in records]
    with pytest.raises(ServingError, match="somewhere measured small-bert at the revision sha256:other"):
        scores_of(retriever, other, "somewhere")


def test_a_name_is_no_mark_up(load):
    hostile = served(load(), fusion(), "x | <script>alert(1)</script> [a](http://b)\n# big `c`\x1b[31m")
    text = header_of(model_card(hostile))[1]
    assert "<script>" not in text and "](http" not in text.replace("](https://arxiv.org", "") and "\x1b" not in text
    assert not any(line.startswith("# big") for line in text.splitlines())
    rows = [line for line in text.splitlines() if line.startswith("| system |")]
    assert len(rows) == 1 and rows[0].count("|") == 3


def test_licences_that_are_known():
    assert licence_of("page-text") == licence_of("page-vision") == "Apache-2.0"
    assert licence_of("page-text-bge") == "MIT"
    assert licence_of("Qwen/Qwen3-VL-Embedding-2B") and licence_of("nobody/knows") == ""


def test_licences_of_the_data_are_those_of_its_manifest(load):
    from miner_diag.fusion.saved_systems import FittedTo

    retriever = served(load(), fusion())
    nothing = {"train": (), "validation": ()}
    retriever.fitted_to = FittedTo("debian-docs-small", "hidden", 0, nothing, nothing)
    assert "LPPL-1.3c" in model_card(retriever)
    retriever.fitted_to = FittedTo("../sample", "hidden", 0, nothing, nothing)
    assert "| data, ../sample | not known" in model_card(retriever)
