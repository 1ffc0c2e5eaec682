"""Every system has one plain name, and no two share one."""

from miner_diag.evaluation.differences import ORDER
from miner_diag.fusion.rows import ROWS
from miner_diag.names import HEADS, KINDS, SYSTEMS, plain_system
from miner_diag.probes.kinds import KINDS as CODES


def test_every_row_of_the_ablation_has_a_plain_name():
    assert {row.name for row in ROWS} <= set(SYSTEMS) and set(ORDER) <= set(SYSTEMS)
    assert not any("_" in name for name in SYSTEMS.values())
    assert len(set(SYSTEMS.values())) == len(SYSTEMS)
    assert {row.name for row in ROWS if row.role == "head"} == set(HEADS)
    assert set(KINDS) == set(CODES)


def test_names_of_runs_and_unknown_systems_stay():
    assert plain_system("miner (a/run_2)") == "MINER (a/run_2)"
    assert plain_system("text read by page-vision") == "BM25, text page-vision read"
    assert plain_system("my_own (x)") == "my own (x)"
