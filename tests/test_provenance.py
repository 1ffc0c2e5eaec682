import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from miner_diag.provenance import RunClock, write_run


@dataclass(frozen=True)
class Options:
    data: str = "sample"
    out: Path = Path("runs")


def test_run_file_says_what_ran_and_on_what(tmp_path):
    clock = RunClock()
    clock.stage("load")
    clock.stage("load")
    write_run(tmp_path, "miner_diag.test", Options(), clock, tie_rate=np.float64(0.25), skipped={"a": "broken"})
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["options"] == {"data": "sample", "out": "runs"}
    assert content["command"] == "miner_diag.test"
    assert content["libraries"]["numpy"] == np.__version__
    assert content["tie_rate"] == 0.25
    assert content["skipped"] == {"a": "broken"}
    assert set(content["seconds_by_stage"]) == {"load"}
    assert 0 <= content["seconds_by_stage"]["load"] <= content["seconds"]
    assert content["peak_memory_mb"] > 10
