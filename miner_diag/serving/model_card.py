"""The card of an exported retriever: what it is, what it was fitted to, its scores with intervals, limits, licences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from miner_diag.backbones.licences import licence_of
from miner_diag.corpus.manifest_file import manifest_folder
from miner_diag.fusion.saved_systems import FittedTo
from miner_diag.records import Record
from miner_diag.runs import read_run, read_run_records
from miner_diag.serving.errors import ServingError
from miner_diag.serving.retriever import BACKBONE, FusedRetriever
from miner_diag.texts import inert

CARD, TEMPLATE = "README.md", "model_card.md.jinja"
EVALUATION, MEASURE, LESS = "miner_diag.evaluation", "ndcg_at_5", "ndcg_at_5_less_backbone"
MARKS = {ord(mark): f"&#{ord(mark)};" for mark in "\\`*[]<>|#&~$"}
"""What means something in Markdown or HTML -> the same as a character alone."""
OTHER_FITS = "(document split "
"""What stands in the split of a record whose systems were fitted anew to other documents, which is not served."""
NOT_KNOWN = "not known to the package; ask its owner before you pass it on"


@dataclass(frozen=True)
class Score:
    """A row of the card's table."""

    data: str
    """The data set."""
    split: str
    """The split."""
    system: str
    """The system's name."""
    value: str
    """nDCG@5 with its interval."""
    difference: str
    """What it has more than the backbone, with its interval; "" for the backbone."""
    n_queries: int
    """How many queries."""
    n_documents: int | str
    """How many documents; "" where that is not known."""


def model_card(retriever: FusedRetriever, evaluations: Sequence[Path] = ()) -> str:
    """Return the card as Markdown with the hub's header.

    Parameters
    ----------
    retriever : FusedRetriever
        What is described.
    evaluations : sequence of path
        Runs of ``python -m miner_diag.evaluation`` that measured it; the backbone's rows stand beside.

    Raises
    ------
    ServingError
        If a run did not measure this system of this backbone.
    ValueError
        If a folder holds no finished run of that command, or its records were changed.
    """
    records = [(path, read_run_records(path, read_run(path, EVALUATION))) for path in evaluations]
    scores = [score for path, found in records for score in scores_of(retriever, found, path)]
    confidences = {record.confidence for _, found in records for record in found if record.confidence is not None}
    backbone, model = retriever.backbone, retriever.backbone.options.model
    licence = licence_of(model)
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters |= {"cell": cell, "quoted": lambda text: json.dumps(inert(text), ensure_ascii=False)}
    facts = {
        "backbone": backbone.name,
        "revision of the backbone": backbone.revision,
        "system": retriever.system_name,
        "layers that are read": ", ".join(map(str, retriever.layers)),
        "pooling": backbone.pooling,
        "prompt of a query": repr(backbone.query_prompt),
        "prompt of a page": repr(backbone.page_prompt),
        "fingerprint": retriever.fingerprint,
    }
    return environment.from_string((Path(__file__).parent / TEMPLATE).read_text(encoding="utf-8")).render(
        name=cell(retriever.name),
        base_model=model if "/" in model and not Path(model).expanduser().exists() else "",
        reads_texts=retriever.reads.texts,
        example='"the text of a page"' if retriever.reads.texts else 'Path("handbook.pdf")',
        width=retriever.width,
        what=_what(retriever),
        facts=facts.items(),
        fitted=_fitted_to(retriever.fitted_to),
        scores=scores,
        confidence=" and ".join(f"{100 * share:g} %" for share in sorted(confidences)),
        limits=_limits(retriever),
        licences=_licences(retriever, licence),
    )


def scores_of(retriever: FusedRetriever, records: Sequence[Record], where: Path) -> list[Score]:
    """Return the rows of a retriever and of its backbone among an evaluation's records.

    Raises
    ------
    ServingError
        If there are none of the retriever, or they are of other weights.
    """
    name, system = retriever.backbone.name, retriever.system_name
    means = [
        record
        for record in records
        if record.query_id is None and record.model == name and OTHER_FITS not in record.split
    ]
    of_system = [record for record in means if record.measure == MEASURE and record.system == system]
    if not of_system:
        raise ServingError(
            f"{where} did not measure the system {system} of {name}; give an evaluation that did, or leave it out"
        )
    other = {record.model_revision for record in of_system} - {retriever.revision}
    if other:
        raise ServingError(f"{where} measured {name} at the revision {min(other)}, and this is {retriever.revision}")
    wanted = dict.fromkeys((BACKBONE, system))
    differences = {(r.dataset, r.split, r.system): r for r in means if r.measure == LESS}
    return [
        Score(
            record.dataset,
            record.split or "",
            record.system or "",
            _with_interval(record),
            _with_interval(differences[at])
            if (at := (record.dataset, record.split, record.system)) in differences
            else "",
            record.n or 0,
            record.n_clusters or "",
        )
        for record in means
        if record.measure == MEASURE and record.system in wanted
    ]


def cell(text: object) -> str:
    """Return a text that stays inside one cell of a Markdown table, and is no mark-up."""
    return inert(text).translate(MARKS)


def _with_interval(record: Record) -> str:
    ends = "" if record.low is None or record.high is None else f" [{record.low:.3f}, {record.high:.3f}]"
    return f"{record.value:.3f}{ends}"


def _what(retriever: FusedRetriever) -> str:
    read = ", ".join(map(str, retriever.layers))
    if retriever.system_name == BACKBONE:
        return f"the final embedding of {cell(retriever.backbone.name)}, as its authors made it."
    layers = f"layer {read}" if len(retriever.layers) == 1 else f"layers {read}"
    return (
        f"the system {cell(retriever.system_name)} over {layers} of {cell(retriever.backbone.name)}, which is frozen."
    )


def _fitted_to(fitted_to: FittedTo | None) -> str:
    if fitted_to is None:
        return "Nothing was fitted."
    counts = {
        split: f"{len(fitted_to.documents[split])} documents, {len(fitted_to.page_hashes[split]):,} pages"
        for split in ("train", "validation")
    }
    return (
        f"Fitted to {cell(fitted_to.corpus)} (queries {fitted_to.form}, split {fitted_to.fold} by document): "
        f"{counts['train']} to train, {counts['validation']} to choose. `fitted_to.json` names them: it must not be "
        "measured on these."
    )


def _limits(retriever: FusedRetriever) -> list[str]:
    backbone = retriever.backbone
    limits = [
        "What it gains was measured on the data above alone; other documents, languages and ways to ask can differ.",
        "A score says which page is nearer. It is no probability that the page holds the answer.",
    ]
    max_tokens = getattr(backbone, "max_tokens", None)
    if retriever.reads.texts and max_tokens is not None:
        beyond = "is read in windows of that length" if backbone.long_pages == "windows" else "is not read"
        limits.append(f"A page has {max_tokens('page')} tokens in one input; what is longer {beyond}.")
        limits.append("It reads the text of a page; figures and layout are not seen.")
    else:
        limits.append("It looks at the picture of a page; a text layer is not read.")
    return limits


def _licences(retriever: FusedRetriever, licence: str) -> list[tuple[str, str]]:
    rows = [(f"backbone, {retriever.backbone.name}", licence or NOT_KNOWN)]
    if retriever.fitted_to is not None:
        rows.append((f"data, {retriever.fitted_to.corpus}", _licences_of_data(retriever.fitted_to.corpus) or NOT_KNOWN))
    return rows


def _licences_of_data(corpus: str) -> str:
    """Return the licences that a data set's manifest states; "" where there is none."""
    path = manifest_folder() / f"{corpus}.yaml"
    if Path(corpus).name != corpus or not path.is_file():
        return ""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return "; ".join(sorted(set(_stated(content))))


def _stated(content: Any) -> list[str]:
    if isinstance(content, Mapping):
        own = [str(content["licence"])] if content.get("licence") else []
        return own + [licence for value in content.values() for licence in _stated(value)]
    return [licence for value in content for licence in _stated(value)] if isinstance(content, list) else []
