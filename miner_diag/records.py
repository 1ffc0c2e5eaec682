"""Rows: one measured number, one record, in JSON Lines and as a DataFrame."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from miner_diag.files import canonical_json, write_atomic


@dataclass(frozen=True)
class Record:
    """One measured number: one model, one data set, one layer, one measure."""

    model: str
    """Name of the backbone."""
    model_revision: str
    """What pins the backbone's weights: a commit, or the hash of a local folder."""
    dataset: str
    """Name of the manifest or folder."""
    split: str
    """"train", "validation", "test" or "all"."""
    measure: str
    """What was measured, as in the table's column: "cka_page_final", "ndcg_at_5"."""
    value: float
    """The number; a measure that has no value has no record."""
    system: str | None = None
    """What of the model was measured: "backbone", "fusion", "final_layer_head"; None where the model itself is."""
    side: str | None = None
    """"query" or "page" for a measure of one side alone; None elsewhere."""
    low: float | None = None
    """Lower end of the interval."""
    high: float | None = None
    """Upper end of the interval."""
    confidence: float | None = None
    """Nominal coverage of the interval."""
    method: str | None = None
    """How the interval was obtained: "jackknife", "bootstrap over queries"."""
    n: int | None = None
    """How many items (queries, pages or pairs) the number rests on."""
    n_clusters: int | None = None
    """How many documents the interval is over; None where items stand for themselves."""
    effective_clusters: float | None = None
    """Kish's effective number of these documents, (sum of n)^2 / sum of n^2 with n items in a document."""
    d: int | None = None
    """Width of the layer."""
    layer: int | None = None
    """0 is the embedding output, n_layers the last."""
    other_layer: int | None = None
    """The second layer of a pair."""
    query_id: str | None = None
    """None for a measure that is not taken per query."""
    estimator: str | None = None
    """"debiased" or "biased", for CKA."""
    p_value: float | None = None
    """Of the test that belongs to the measure."""
    seed: int | None = None
    """None where nothing is drawn."""


def write_records(path: Path | str, records: Iterable[Record]) -> None:
    """Write one JSON object per line, whole file or none.

    Raises
    ------
    ValueError
        If a record holds NaN or an infinity: such a number is an error where it arises, not a row.
    """
    lines = []
    for record in records:
        fields = {key: value for key, value in dataclasses.asdict(record).items() if value is not None}
        try:
            lines.append(canonical_json(fields) + "\n")
        except ValueError as error:
            raise ValueError(f"record {fields} holds a number that JSON does not have: {error}") from None
    write_atomic(path, "".join(lines))


def read_records(path: Path | str) -> list[Record]:
    """Read what :func:`write_records` wrote.

    Raises
    ------
    ValueError
        If there is no such file, it holds no record, its last line is cut, or a line is no record; the message names
        the file, the line and the next step.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not there; the run in {path.parent} is not whole. Start its command again")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}). Start the command that wrote it again") from None
    if not text.strip():
        raise ValueError(f"{path} holds no record; expected a JSON object on each line. Start the command again")
    if not text.endswith("\n"):
        raise ValueError(f"{path} is cut: its last line has no end. Start the command again")
    records = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            records.append(Record(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} is not a record: {error}. Start the command that wrote it again"
            ) from None
    return records


def records_to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return the records as a long DataFrame, a column per field."""
    names = [field.name for field in dataclasses.fields(Record)]
    return pd.DataFrame([dataclasses.asdict(record) for record in records], columns=names)
