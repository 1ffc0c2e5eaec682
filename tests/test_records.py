import pytest

from miner_diag.records import Record, read_records, records_to_frame, write_records


def record(**changes):
    fields = {
        "model": "m",
        "model_revision": "r",
        "dataset": "d",
        "split": "test",
        "measure": "ndcg_at_5",
        "value": 0.5,
    }
    return Record(**fields | changes)


def test_what_is_written_is_read_back(tmp_path):
    records = [record(layer=0, low=0.4, high=0.6, n=10), record(query_id="q1", value=1.0)]
    write_records(tmp_path / "records.jsonl", records)
    assert read_records(tmp_path / "records.jsonl") == records
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 2


def test_nan_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "records.jsonl"
    write_records(path, [record()])
    with pytest.raises(ValueError, match="'measure': 'ndcg_at_5'.*JSON does not have"):
        write_records(path, [record(value=float("nan"))])
    assert read_records(path) == [record()]


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "records.jsonl"
    write_records(path, [record()])
    path.write_text(path.read_text() + '{"measure": "x"}\n')
    with pytest.raises(ValueError, match=r"records.jsonl, line 2 is not a record"):
        read_records(path)


def test_frame_has_a_column_per_field():
    frame = records_to_frame([record(layer=3)])
    assert frame.loc[0, "layer"] == 3
    assert {"model", "value", "low", "high", "n", "p_value"} <= set(frame.columns)
