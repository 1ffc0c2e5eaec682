"""What each difference between MINER's form and ours is worth: every switched row against miner, in one family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from miner_diag.corpus import Corpus
from miner_diag.evaluation.compare import SystemComparison, SystemValues, compare_systems
from miner_diag.evaluation.plots import GREY, ROLES
from miner_diag.evaluation.scored_system import BACKBONE, ScoredSystem
from miner_diag.evaluation.table import difference_columns, end_columns
from miner_diag.figures import finish_figure, new_figure
from miner_diag.fusion.miner_rows import DIFFERENCES
from miner_diag.stats import StatisticsOptions

MINER, OURS, WHITENED, HEAD = "miner", "trained_maps", "whitened", "head"

LABELS = {
    BACKBONE: "backbone",
    WHITENED: "backbone, whitened (no labels)",
    "final_layer_vector": "u and b on the final layer alone",
    HEAD: "best head on the final layer",
    MINER: "miner",
    "miner_our_layers": "… with our layers",
    "miner_our_probes": "… with our projections",
    "miner_our_mask": "… with our mask",
    "miner_scalar_weights": "… with scalar weights",
    "miner_trained_maps": "… with trained maps",
    "miner_whitened": "… with a whitened final layer",
    "miner_random_negatives": "… with random negatives",
    OURS: "trained_maps (ours)",
}
"""The systems of the table in its order, and what the figure calls them."""

FAMILY = "differences"
"""What the table calls its one family of comparisons."""

ENDS = {"difference_to_backbone": "", "difference_to_miner": "miner_"}
"""A column of differences -> what the columns of its interval and p value begin with."""

_ROLE_OF = {BACKBONE: "backbone", "final_layer_vector": "head", HEAD: "head", MINER: "fusion", OURS: "fusion"}


def differences_table(
    systems: Sequence[ScoredSystem],
    part: Corpus,
    documents: Sequence[str] | None,
    statistics: StatisticsOptions,
) -> pd.DataFrame | None:
    """Return ``differences.csv``: each system with its difference to miner, p by Holm over all of them.

    Columns that ``comparison.csv`` has, too, hold the same numbers; those on miner begin with "miner".

    Parameters
    ----------
    systems : sequence of ScoredSystem
        Those of one fusion run, on the same queries.
    part : Corpus
        What the queries are of.
    documents : sequence [Q], optional
        The document of each query, if intervals are over documents.
    statistics : StatisticsOptions
        How intervals and tests are taken.

    Returns
    -------
    DataFrame or None
        None where miner or all of its switched rows are missing: ``fusion --systems differences`` fits them.
    """
    by_name = {system.name: system for system in systems}
    if MINER not in by_name or not any(difference.name in by_name for difference in DIFFERENCES):
        return None
    kept = [by_name[name] for name in LABELS if name in by_name]
    key = by_name[MINER].key

    def values(system: ScoredSystem, against: str | None) -> SystemValues:
        # the one role makes them one family, which is told apart from those of the other tables
        return SystemValues(system.key, "variant", system.ndcg, None if system.key == against else against)

    to_miner = compare_systems([values(system, key) for system in kept], clusters=documents, statistics=statistics)
    backbone = by_name[BACKBONE].key if BACKBONE in by_name else None
    to_backbone = compare_systems(
        [values(system, backbone) for system in kept], clusters=documents, statistics=statistics
    )
    rows = []
    for system, against, base in zip(kept, to_miner.systems, to_backbone.systems, strict=True):
        rows.append(
            {
                "data": part.name,
                "queries": part.form,
                "split": part.part,
                "model": system.model,
                "system": system.name,
                "what": system.what,
                "ndcg_at_5": against.value,
                **end_columns("low", "high", against.interval),
                "backbone": None if base.to_backbone is None else system.model,
                **_columns_of("to_backbone", "", base, ("p_value",)),
                **_columns_of("to_miner", "miner_", against, ("p_value", "p_holm")),
                "family": FAMILY,
                "n_seeds": len(system.seeds),
                "n_queries": to_miner.n_queries,
                "n_documents": to_miner.n_documents,
                "effective_documents": to_miner.effective_documents,
            }
        )
    return pd.DataFrame(rows)


def differences_sentences(table: pd.DataFrame, where: str) -> list[str]:
    """Return what the table answers: what miner is worth, how much of ours it is, what training and whitening are."""
    rows = table.set_index("system")

    def told(name: str, column: str) -> str:
        row = rows.loc[name]
        low, high = (row[f"{ENDS[column]}difference_{end}"] for end in ("low", "high"))
        return f"{row[column]:+.4f} [{low:+.4f}, {high:+.4f}]"

    base = rows.loc[BACKBONE, "ndcg_at_5"]
    gain = rows.loc[MINER, "difference_to_backbone"]
    lines = [
        f"On {where}, MINER's form as its authors describe it adds {told(MINER, 'difference_to_backbone')} nDCG@5 to "
        f"the backbone's {base:.4f} ({gain / base:+.1%})."
    ]
    if HEAD in rows.index:
        lines.append(f"The best head on the final layer less miner: {told(HEAD, 'difference_to_miner')}.")
    if OURS in rows.index and rows.loc[OURS, "difference_to_backbone"] > 0:
        ours = rows.loc[OURS, "difference_to_backbone"]
        share = f"; miner has {gain / ours:.0%} of that gain" if gain > 0 else ""
        lines.append(
            f"Our form adds {told(OURS, 'difference_to_backbone')} to the backbone{share}. Less miner: "
            f"{told(OURS, 'difference_to_miner')}."
        )
    parts = [
        f"{LABELS[difference.name].removeprefix('… ')} {told(difference.name, 'difference_to_miner')}"
        for difference in DIFFERENCES
        if difference.name in rows.index
    ]
    lines.append(f"Switched alone, from miner towards ours: {'; '.join(parts)}.")
    if WHITENED in rows.index:
        lines.append(
            f"Whitening the final layer, without labels and without a fusion, adds "
            f"{told(WHITENED, 'difference_to_backbone')}."
        )
    return lines


def differences_figure(table: pd.DataFrame, *, title: str = "", caption: str = "") -> Figure:
    """Draw each system's difference to miner with its interval, in the order of the table.

    Parameters
    ----------
    table : DataFrame
        ``differences.csv`` of one fusion run.
    title : str
        Backbone, data set and queries.
    caption : str
        What intervals are over.
    """
    rows = table.iloc[::-1].reset_index(drop=True)
    figure = new_figure(7.2, 1.5 + 0.28 * len(rows))
    ax = figure.subplots()
    for place, row in enumerate(rows.itertuples()):
        role = _ROLE_OF.get(row.system, "")
        colour = ROLES[role][0] if role else GREY
        look: dict[str, Any] = {"color": colour, "marker": "s" if role == "fusion" else "o", "markersize": 5}
        if row.system == MINER:
            ax.plot(0.0, place, **look)
            continue
        value = row.difference_to_miner
        ends = [[value - row.miner_difference_low], [row.miner_difference_high - value]]
        sure = row.miner_p_holm is not None and row.miner_p_holm < 0.05
        face = colour if sure else "white"
        ax.errorbar(value, place, xerr=np.maximum(ends, 0), capsize=2.5, **look, markerfacecolor=face)
    ax.axvline(0, color="0.4", linewidth=0.9)
    ax.set_yticks(range(len(rows)), [LABELS[name] for name in rows["system"]])
    ax.set(xlabel="nDCG@5 less that of miner, test queries (filled: p Holm < 0.05)")
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    return finish_figure(figure, title, caption)


def of_run(systems: Sequence[ScoredSystem], model: str, label: str) -> list[ScoredSystem]:
    """Return the systems of one fusion run by their plain names, with its backbone and its chosen head as "head"."""
    suffix = f" ({label})" if label else ""
    own = [
        replace(system, name=system.name.removesuffix(suffix))
        for system in systems
        if system.model == model and (system.role == "backbone" or system.name.endswith(suffix))
    ]
    heads = {system.head for system in own if system.role == "fusion"}
    return own + [
        replace(system, name=HEAD) for system in systems if system.key in heads and HEAD not in {s.name for s in own}
    ]


def _columns_of(to: str, prefix: str, compared: SystemComparison, tests: Sequence[str]) -> dict[str, float | None]:
    """Return the columns of one difference that the table holds: value, interval, and those of its test."""
    columns = difference_columns(to, prefix, compared.to_backbone)
    kept = (f"difference_{to}", *(f"{prefix}{name}" for name in ("difference_low", "difference_high", *tests)))
    return {name: columns[name] for name in kept}
