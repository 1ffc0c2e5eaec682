"""Figures drawn again from the CSV files beside them: no run, no model and no corpus is needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from miner_diag.cka.plots import cka_matrix_figure, depth_figure, layer_figure
from miner_diag.corpus.plots import queries_by_kind
from miner_diag.evaluation.differences import differences_figure
from miner_diag.evaluation.leaderboard import leaderboard_figure
from miner_diag.evaluation.plots import ablation_figure, cost_figure, folds_figure, query_differences_figure
from miner_diag.figures import save_figure
from miner_diag.fusion.plots import sensitivity_figure, training_figure, weights_figure
from miner_diag.probes.plots import probe_figure, ratio_figure, salience_figure
from miner_diag.tables import read_csv

FIGURES: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "queries_by_kind": queries_by_kind,
    "layers": layer_figure,
    "cka_matrix": cka_matrix_figure,
    "depth": depth_figure,
    "probes": probe_figure,
    "salience": salience_figure,
    "ratio": ratio_figure,
    "ablation": ablation_figure,
    "differences": differences_figure,
    "weights": weights_figure,
    "training": training_figure,
    "sensitivity": sensitivity_figure,
    "main_table": cost_figure,
    "leaderboard": leaderboard_figure,
    "own_run": query_differences_figure,
}
"""Kind of figure -> what draws its table. Of document splits, "folds", there are two tables."""

TOGETHER = "folds_together"
"""What stands for "folds" in the name of the second table of document splits."""

_NAME = re.compile(r"(?:\d\d_)?(?P<kind>[a-z_]+?)(?:_(?:hidden|verbatim))?")


def kind_of(path: Path | str) -> str | None:
    """Return the kind of figure that a CSV file is the table of, None where it is no figure's.

    Examples
    --------
    >>> kind_of("figures/04_weights_hidden.csv"), kind_of("figures/maxsim.csv")
    ('weights', None)
    """
    found = _NAME.fullmatch(Path(path).stem)
    kind = found["kind"] if found else None
    return kind if kind in (*FIGURES, "folds") else None


def figure_of(path: Path | str) -> Figure:
    """Draw the figure of one CSV file.

    Parameters
    ----------
    path : path
        The file, named as in ``figures/``: ``02_layers.csv``, ``04_weights_hidden.csv``.

    Raises
    ------
    ValueError
        If the file is the table of no figure.
    """
    path, kind = Path(path), kind_of(path)
    if kind is None:
        raise ValueError(
            f"{path} is the table of no figure; expected a name with one of {', '.join([*FIGURES, 'folds'])}"
        )
    if kind == "folds":
        return folds_figure(read_csv(path), read_csv(path.with_name(path.name.replace("folds", TOGETHER))))
    return FIGURES[kind](read_csv(path))


def redraw(folder: Path | str, out: Path | str | None = None) -> list[Path]:
    """Draw every figure of a folder again from its CSV file, as PNG and SVG; a second time gives the same bytes.

    Parameters
    ----------
    folder : path
        The folder with the CSV files.
    out : path, optional
        Where the figures are written; that folder if it is not given.

    Returns
    -------
    list of Path
        The PNG files.
    """
    folder = Path(folder)
    tables = [path for path in sorted(folder.glob("*.csv")) if kind_of(path) is not None]
    pictures = [(Path(out) if out is not None else folder) / path.with_suffix(".png").name for path in tables]
    for table, picture in zip(tables, pictures, strict=True):
        save_figure(figure_of(table), picture)
    return pictures
