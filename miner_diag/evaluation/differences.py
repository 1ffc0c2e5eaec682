"""What each difference between MINER's form and ours is worth: every switched row against miner, in one family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from miner_diag.corpus import Corpus
from miner_diag.evaluation.compare import SystemComparison, SystemValues, compare_systems
from miner_diag.evaluation.forest import (
    ROLE_COLOURS,
    Mark,
    Row,
    draw_rows,
    model_legend,
    model_markers,
    n_lines,
    reach,
)
from miner_diag.evaluation.scored_system import BACKBONE, ScoredSystem
from miner_diag.evaluation.table import difference_columns, end_columns
from miner_diag.figures import GREY, WIDTH, counts, finish_figure, intervals_over, new_figure, subject
from miner_diag.fusion.miner_rows import DIFFERENCES
from miner_diag.names import SYSTEMS, plain_system
from miner_diag.stats import StatisticsOptions

MINER, OURS, WHITENED, HEAD = "miner", "trained_maps", "whitened", "head"

ORDER = (
    BACKBONE,
    WHITENED,
    "final_layer_vector",
    HEAD,
    MINER,
    "miner_our_layers",
    "miner_our_probes",
    "miner_our_mask",
    "miner_scalar_weights",
    "miner_trained_maps",
    "miner_whitened",
    "miner_random_negatives",
    OURS,
)
"""The systems of the table in its order."""

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
    kept = [by_name[name] for name in ORDER if name in by_name]
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
                "confidence": to_miner.confidence,
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
        f"with {SYSTEMS[difference.name].removeprefix('MINER, ')} {told(difference.name, 'difference_to_miner')}"
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


def differences_figure(table: pd.DataFrame) -> Figure:
    """Draw each system's difference to MINER with its interval, in the order of the table.

    Parameters
    ----------
    table : DataFrame
        ``differences.csv``; of several retrievers, or several runs of one, each has a marker of its own.
    """
    run = (
        table["run"].astype(object).fillna("").map(lambda name: f" ({name})" if name else "") if "run" in table else ""
    )
    table = table.assign(of=table["model"] + run)
    markers = model_markers(list(dict.fromkeys(table["of"])))
    rows = []
    for name in dict.fromkeys(table["system"]):
        colour = ROLE_COLOURS.get(_ROLE_OF.get(name, ""), GREY)
        marks = [Mark(0.0, float("nan"), float("nan"), colour, filled=True)]
        others = [
            Mark(
                row.difference_to_miner,
                row.miner_difference_low,
                row.miner_difference_high,
                colour,
                markers[row.of],
                row.miner_p_holm < 0.05,
            )
            for row in table[table["system"] == name].itertuples()
        ]
        rows.append(Row(plain_system(name), marks if name == MINER else others, colour))
    figure = new_figure(WIDTH, 1.4 + 0.2 * n_lines(rows))
    ax = figure.subplots()
    ax.set_xlim(*reach([mark for row in rows for mark in row.marks]))
    draw_rows(ax, rows)
    ax.set_xlabel("nDCG@5 less that of MINER")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    model_legend(ax, markers)
    title = f"What separates MINER from ours\n{subject(table)}"
    caption = f"{counts(table)}{intervals_over(table)}. Filled: p < 0.05 after Holm over all rows."
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
