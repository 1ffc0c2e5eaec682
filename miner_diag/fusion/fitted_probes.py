"""What the probe stage hands over: fitted afresh, or read from the folder of an earlier run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from miner_diag.fusion.model import FusionError
from miner_diag.fusion.systems import FittedProbes
from miner_diag.probes.kinds import KINDS
from miner_diag.probes.probe_stack import ProbeStack
from miner_diag.probes.splits import Splits
from miner_diag.probes.study import Study, StudyOptions, study


def fitted_probes_of(found: Study) -> FittedProbes:
    """Return what the fusion needs of a study."""
    first = found.fits[0]
    return FittedProbes(
        first.stack,
        first.ndcg.mean(axis=2),
        np.stack(found.salience),
        tuple(verdict.chosen for verdict in found.verdicts),
        found.selected,
        tuple(found.ratios),
    )


def study_for_fusion(
    splits: Splits, options: StudyOptions, *, by_document: bool, backbone: Mapping[str, str], **settings: Any
) -> Study:
    """Run the probe stage once: one seed, no controls; its own command does the whole of it."""
    quick = replace(options, n_seeds=1, controls=False)
    corpus = splits.validation.corpus
    return study(
        splits.train.judged,
        splits.validation.judged,
        quick,
        page_hashes=[page.page_hash for page in corpus.pages],
        by_document=by_document,
        backbone=dict(backbone),
        **settings,
    )


def read_fitted_probes(folder: Path, backbone: Mapping[str, str], splits: Splits) -> FittedProbes:
    """Read what ``python -m miner_diag.probes`` wrote.

    Raises
    ------
    FusionError
        If the folder is not whole, or the probes were fitted to other documents than `splits` has for training: the
        fusion's test pages could be among them.
    ProbeError
        If they are probes of another backbone.
    """
    names = ("run.json", "probes.safetensors", "probes.csv", "salience.safetensors", "selection.json")
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise FusionError(f"{folder} holds no whole probe run ({', '.join(missing)} missing); run miner_diag.probes")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    fitted_to = {"train": run["train"]["corpus_revision"], "validation": run["corpus_revision"]}
    for name, split in (("train", splits.train), ("validation", splits.validation)):
        if fitted_to[name] != split.corpus.revision:
            raise FusionError(
                f"the probes in {folder} have another {name} split than this run ({fitted_to[name][:12]}… there, "
                f"{split.corpus.revision[:12]}… here), so test pages may be among what they were fitted to; fit them "
                "again with the same --data, --queries, --fold and --limit"
            )
    stack = ProbeStack.load(folder / "probes.safetensors", backbone)
    table = pd.read_csv(folder / "probes.csv")
    of_kind = [table[table["kind"] == kind].sort_values("layer") for kind in KINDS]
    salience = load_file(folder / "salience.safetensors")
    ratios = tuple(None if np.isnan(ratio) else float(ratio) for ratio in of_kind[0]["alignment_ratio_page_final"])
    selected = json.loads((folder / "selection.json").read_text(encoding="utf-8"))["selected_layers"]
    return FittedProbes(
        stack,
        np.stack([rows["validation_ndcg_at_5"].to_numpy() for rows in of_kind]),
        np.stack([salience[kind] for kind in KINDS]),
        tuple(of_kind[0]["chosen_kind"]),
        tuple(selected),
        ratios,
    )
