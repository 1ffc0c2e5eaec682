"""``miner-diag index`` and ``miner-diag search`` as they are typed, and the page that they write."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser

import pytest

from miner_diag import __main__ as miner_diag
from miner_diag.serving.__main__ import main
from tests.corpus.files import PdfPage, Text, pdf_bytes
from tests.serving.helpers import needs_edge

MODEL = ["--pooling", "mean", "--device", "cpu", "--reader", "text-layer"]
EVIL = "<script>alert(1)</script>\x1b[2J\u202e"


class Parsed(HTMLParser):
    """Tags and the addresses that a page would load."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.sources, self.texts = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def hostile(handbooks):
    pages = [PdfPage((Text("anchor basin canal"),)), PdfPage((Text("delta estuary"),))]
    (handbooks / "<b>evil\x1b[2J & co.pdf").write_bytes(pdf_bytes(pages, [(EVIL, 0)]))
    return handbooks


def test_from_a_folder_to_an_answer(hostile, checkpoint, tmp_path, capsys, monkeypatch):
    out, page = tmp_path / "index", tmp_path / "found.html"
    monkeypatch.setattr(
        sys, "argv", ["miner-diag", "index", str(hostile), "--out", str(out), "--model", str(checkpoint), *MODEL]
    )
    miner_diag.main()
    printed = capsys.readouterr().out
    assert "5 documents with 14 pages can be found: 5 embedded, 0 as they were, 0 taken out." in printed
    assert f"next: miner-diag search {out} 'your question'" in printed
    question = f"anchor basin canal {EVIL}"
    monkeypatch.setattr(sys, "argv", ["miner-diag", "search", str(out), question, "--k", "14", "--html", str(page)])
    miner_diag.main()
    printed = capsys.readouterr().out
    assert re.search(r"rank +score +document +page +section", printed)
    assert "\x1b" not in printed and "\u202e" not in printed and r"evil\x1b[2J" in printed
    html = page.read_text(encoding="utf-8")
    seen = Parsed(html)
    assert "script" not in seen.tags and "b" not in seen.tags and seen.tags.count("img") == 14
    assert all(source.startswith("data:image/jpeg;base64,") for source in seen.sources)
    assert "default-src 'none'" in html and "\x1b" not in html and "\u202e" not in html
    assert any(r"<b>evil\x1b[2J & co" in text for text in seen.texts) and any("<script>" in text for text in seen.texts)
    assert seen.tags.count("section") == 1, "the backbone alone"


def test_both_answers_stand_side_by_side(fitted, tmp_path, capsys):
    out, page = tmp_path / "index", tmp_path / "found.html"
    main(["index", str(fitted.documents), "--out", str(out), "--run", str(fitted.fusion)])
    main(["search", str(out), "anchor basin canal", "--k", "2", "--html", str(page), "--exact"])
    seen = Parsed(page.read_text(encoding="utf-8"))
    assert seen.tags.count("section") == 2 and seen.tags.count("img") == 4
    assert [text for text in seen.texts if text in ("fused", "backbone")] == ["fused", "backbone"]
    assert f"{page} shows these pages" in capsys.readouterr().out


def test_a_page_whose_file_is_gone_has_a_reason_and_no_picture(handbooks, checkpoint, tmp_path, capsys):
    out, page = tmp_path / "index", tmp_path / "found.html"
    main(["index", str(handbooks), "--out", str(out), "--model", str(checkpoint), *MODEL])
    for path in handbooks.glob("*.pdf"):
        path.unlink()
    main(["search", str(out), "anchor", "--k", "1", "--html", str(page)])
    assert "its file is gone); run miner-diag index again" in capsys.readouterr().out
    seen = Parsed(page.read_text(encoding="utf-8"))
    assert "img" not in seen.tags and any("No picture: its file is gone" in text for text in seen.texts)


def test_bad_input_is_a_sentence(tmp_path, handbooks, capsys):
    for arguments, sentence in [
        (["index", str(tmp_path / "nowhere")], "nowhere is not a folder"),
        (["search", str(tmp_path / "nowhere"), "a"], "nowhere is no index"),
    ]:
        with pytest.raises(SystemExit, match=sentence):
            main(arguments)
    with pytest.raises(SystemExit):
        main(["index", str(handbooks), "--out", str(tmp_path / "i"), "--shards", "2"])
    assert "have no effect without --qdrant-url" in " ".join(capsys.readouterr().err.replace("│", " ").split())


@needs_edge
def test_bench_writes_the_table_and_its_figures(fitted, tmp_path, capsys):
    from miner_diag.records import read_records
    from miner_diag.runs import read_run
    from miner_diag.serving.cost import COLUMNS
    from miner_diag.tables import read_csv

    out = tmp_path / "cost"
    where = ["--data", str(fitted.documents), "--queries", "verbatim", "--store", str(fitted.store)]
    how = ["--sizes", "20", "120", "--n-queries", "6", "--n-pages", "2"]
    main(["bench", "--run", str(fitted.fusion), *where, *how, "--out", str(out)])
    table = read_csv(out / "cost.csv")
    assert list(table.columns) == list(COLUMNS)
    measured = table[table["label"].eq("measured")]
    assert set(measured["system"]) == {"backbone", "miner", "trained_maps", "page-text-late"}
    for system in ("backbone", "miner", "trained_maps"):
        rows = measured[measured["system"].eq(system)]
        forms = sorted(rows[["representation", "dtype", "search"]].itertuples(index=False, name=None))
        assert forms == [
            ("first half", "float32", "approximate"),
            ("first half", "float32", "exact"),
            ("first quarter", "float32", "approximate"),
            ("first quarter", "float32", "exact"),
            ("whole", "binary, rescored", "approximate"),
            ("whole", "float32", "approximate"),
            ("whole", "float32", "exact"),
            ("whole", "int8, rescored", "approximate"),
        ]
        assert rows["ndcg_at_5"].between(0, 1).all() and (rows["encode_query_p50_ms"] > 0).all()
    assert sorted(measured.loc[measured["system"].eq("page-text-late"), "dtype"]) == ["float16", "float32"]
    synthetic = table[table["label"].str.contains("synthetic")]
    assert set(synthetic["n_pages"]) == {120} and synthetic["ndcg_at_5"].isna().all()
    assert set(synthetic["system"]) == {"backbone", "miner"}
    assert table["label"].str.startswith("published, not run here").sum() == 3
    run, printed = read_run(out, "miner_diag.serving"), capsys.readouterr().out
    assert run["engine"] and run["sentences"][0] in printed
    assert "Sizes 20 are not above the data's own" in printed
    assert all((out / name).stat().st_size > 5_000 for name in ("cost_bytes.png", "cost_speed.png"))
    records = read_records(out / "records.jsonl")
    backbone = [r.value for r in records if r.system == "backbone; whole, float32; exact"]
    exact = measured[
        measured["system"].eq("backbone") & measured["dtype"].eq("float32") & measured["search"].eq("exact")
    ]
    assert sum(backbone) / len(backbone) == pytest.approx(exact.iloc[0]["ndcg_at_5"])


def test_bench_refuses_pages_that_the_run_was_fitted_to(fitted, tmp_path):
    where = ["--data", str(fitted.documents), "--queries", "verbatim", "--store", str(fitted.store)]
    with pytest.raises(SystemExit, match="cannot be evaluated here, because it has seen these pages"):
        main(["bench", "--run", str(fitted.fusion), *where, "--split", "validation", "--out", str(tmp_path / "cost")])
