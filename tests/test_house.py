"""What the repository says of itself is true: imports point one way, the README's tree is the tree."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "miner_diag"

FLOORS = [
    {"version", "locks", "names", "texts", "stopping", "hub"},
    {"files", "arrays"},
    {"sealed", "tables"},
    {"figures", "records", "stats", "provenance", "command", "training_state", "qrels", "file_hashes"},
    {"runs"},
    {"corpus", "retrieval"},
    {"backbones"},
    {"embeddings"},
    {"store"},
    {"cka"},
    {"probes"},
    {"fusion"},
    {"evaluation"},
    {"late"},
    {"serving"},
    {"report"},
    {"__init__", "__main__"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
ARRAYS_ONLY = [
    "arrays.py",
    "stats.py",
    "retrieval/metric_values.py",
    "retrieval/positions.py",
    "retrieval/ndcg.py",
    "retrieval/metrics.py",
    "retrieval/maxsim.py",
    "retrieval/tokens.py",
    "cka/hsic.py",
]


def imported(path):
    """Modules that a file imports anywhere in it, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import; write it out"
            yield node.module


def test_imports_point_one_way():
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for module in imported(path):
            parts = module.split(".")
            if parts[0] != "miner_diag" or len(parts) == 1:
                continue
            there = parts[1]
            if there != here:
                assert FLOOR[there] < FLOOR[here], f"{path.relative_to(ROOT)} imports {module}, which is not below it"


def test_no_import_cycle_inside_a_stage():
    graph = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        graph[name] = {module for module in top_level_imports(path) if module.startswith("miner_diag.")}
    done, active = set(), []

    def visit(name):
        assert name not in active, f"import cycle: {' -> '.join([*active[active.index(name) :], name])}"
        if name in done or name not in graph:
            return
        active.append(name)
        for module in sorted(graph[name]):
            visit(module)
        active.pop()
        done.add(name)

    for name in graph:
        visit(name)


def top_level_imports(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("name", ARRAYS_ONLY)
def test_numbers_are_functions_of_arrays(name):
    modules = {module.split(".")[0] for module in imported(PACKAGE / name)}
    assert not modules & {"transformers", "pandas", "safetensors", "matplotlib", "seaborn", "json", "pathlib", "yaml"}


def test_only_backbones_import_transformers():
    for path in PACKAGE.rglob("*.py"):
        if "transformers" in {module.split(".")[0] for module in imported(path)}:
            assert path.relative_to(PACKAGE).parts[0] == "backbones", f"{path} imports transformers"


STAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__main__.py"))


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_one_way_in(stage):
    main = (PACKAGE / stage / "__main__.py").read_text(encoding="utf-8")
    assert len(main.splitlines()) <= 20, f"{stage}/__main__.py does more than to parse and to run"
    assert f"from miner_diag.{stage}.run import" in main
    assert (PACKAGE / stage / "run.py").exists()


def test_miner_diag_knows_every_stage():
    from miner_diag.__main__ import STAGES as KNOWN

    assert set(KNOWN) == set(STAGES)


def test_nothing_imports_a_main():
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "tools").rglob("*.py"), *(ROOT / "notebooks").glob("*.py")]
    for path in sources:
        for module in imported(path):
            assert not (module or "").endswith(".__main__"), f"{path.relative_to(ROOT)} imports {module}"


def test_options_are_composed():
    """No options class inherits from another one."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith(("Options", "Rule", "Rules", "Config")):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                inherited = [name for name in bases if name.endswith(("Options", "Rule", "Rules"))]
                assert not inherited, f"{path.relative_to(ROOT)}: {node.name} inherits {inherited}"


def test_no_pickles():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        modules = {module.split(".")[0] for module in imported(path)}
        assert not modules & {"pickle", "joblib", "dill", "cloudpickle", "shelve"}, path


def test_readme_tree_is_the_tree():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- tree -->\n```text\n(.*?)```", text, re.DOTALL)
    assert block, "README.md has no file tree between <!-- tree --> and the end of its code block"
    lines = block.group(1).splitlines()
    assert len(lines) <= 30, "a folder and its purpose a line; what a file holds stands in its docstring"
    told, stack = set(), []
    for line in lines:
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.split(r"  +", line.strip())[0].split(", ")
        stack = [*stack[:depth], names[0].rstrip("/")]
        told |= {"/".join([*stack[:-1], name.rstrip("/")]) for name in names}
    for entry in told:
        assert (ROOT / entry).exists(), f"README names {entry}, which is not there"
    for path in PACKAGE.glob("*/__init__.py"):
        entry = path.parent.relative_to(ROOT).as_posix()
        assert entry in told, f"README's tree lacks {entry}"


def test_the_package_ships_its_licence_and_notice():
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "all-MiniLM-L6-v2" in (ROOT / "NOTICE").read_text(encoding="utf-8")


def test_citation_has_the_papers_author_order():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    names = re.findall(r"family-names: (\w+)", text)
    assert names == ["Li", "Song", "Li", "Liu", "Zhang", "Jiao", "Tang", "He", "Wu", "Liu", "Yuan"]


README_PYTHON = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_readme_has_its_examples():
    assert len(README_PYTHON) == 4


@pytest.mark.parametrize("block", README_PYTHON, ids=lambda block: re.findall(r"miner_diag\.[\w.]+", block)[-1])
def test_readme_python_runs(block, capsys):
    if "import mteb" in block:
        pytest.importorskip("mteb", reason='needs the extra "mteb"')
    assert len(block.strip().splitlines()) <= 12
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
