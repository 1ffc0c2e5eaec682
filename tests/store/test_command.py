import pytest

from miner_diag.embeddings import EmbeddedCorpus, StoreOptions
from miner_diag.store.__main__ import main
from tests.embeddings.helpers import PretendBackbone, three_splits


@pytest.fixture
def root(tmp_path):
    corpus, options = three_splits(), StoreOptions(tmp_path / "store")
    EmbeddedCorpus(corpus, PretendBackbone(), options, progress=False).take(corpus)
    return options.store


def test_lists_and_deletes(root, capsys):
    main(["--store", str(root)])
    output = capsys.readouterr().out
    names = sorted(path.name for path in root.iterdir())
    assert all(name in output for name in names) and "tiny (hidden, all)" in output and "4 x 6" in output
    assert f"2 stores, {sum(p.stat().st_size for p in root.rglob('*') if p.is_file()) / 1e3:.0f} kB in {root}" in output
    assert output.splitlines()[-1] == f"next: miner-diag store --store {root} --delete NAME [NAME ...]"
    main(["--store", str(root), "--delete", *names])
    output = capsys.readouterr().out
    assert f"deleted {names[0]}: 180 items" in output and f"{root} holds nothing" in output
    assert list(root.iterdir()) == []


def test_what_cannot_be_used_is_said(root, capsys):
    (root / "old").mkdir()
    (root / "old" / "key.json").write_text('{"format": 1, "key": {}}')
    main(["--store", str(root)])
    assert "old: it has store format 1, this version reads 4" in capsys.readouterr().out


def test_bad_input_is_a_sentence(root):
    with pytest.raises(SystemExit, match="error: .* holds no store 'x'; it holds pretend-"):
        main(["--store", str(root), "--delete", "x"])


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    output = " ".join(capsys.readouterr().out.split())
    for words in (
        "--store",
        "--delete",
        "The names of the stores that are deleted",
        "embedded again when it is needed",
    ):
        assert words in output
