"""An index says what is in the folder, whatever happened to the folder, the index or the process in between."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import miner_diag.serving.index as index_module
from miner_diag.corpus import CorpusError
from miner_diag.files import PlaceError
from miner_diag.locks import FolderInUseError
from miner_diag.retrieval.search import top_k
from miner_diag.sealed import SEAL, sealed
from miner_diag.serving.answers import CHANGED, GONE, ask
from miner_diag.serving.engine import EngineError, ServerOptions, default_kind
from miner_diag.serving.errors import ServingError
from miner_diag.serving.index import make_index, read_facts
from miner_diag.serving.indexed_documents import read_indexed
from tests.corpus.files import PdfPage, Text, pdf_bytes
from tests.handbooks import WORDS
from tests.serving.helpers import needs_client, needs_edge

ROOT = Path(__file__).parents[2]
QUESTION = " ".join(WORDS[:5])
KINDS = ["exact", pytest.param("qdrant-edge", marks=needs_edge)]


def write_pdf(path, *words_of_pages, outline=()):
    path.write_bytes(pdf_bytes([PdfPage((Text(words),)) for words in words_of_pages], outline))


def points(out, name="backbone"):
    facts = read_facts(out)
    engine = facts.open_engine(out, name)
    try:
        return engine.ids(), engine.count()
    finally:
        engine.close()


def documents(out):
    return {document.doc_id for document in read_indexed(out, read_facts(out).fingerprints).values()}


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_retriever_over_all_pages(indexed, kind):
    """Pages, scores and order are what exact search over one encoding of all pages gives."""
    report = indexed.index(engine=kind)
    assert (report.documents, report.pages, len(report.embedded)) == (4, 12, 4)
    assert report.facts.engine == kind
    retrievers = report.facts.retrievers()
    encoded = retrievers.joined.encode_pages(sorted(indexed.folder.glob("*.pdf")))
    expected = top_k(retrievers.encode_query(QUESTION)["backbone"][None], encoded.vectors, 6)
    answers = ask(indexed.out, QUESTION, 6, exact=True).main
    found = [(answer.document, answer.page) for answer in answers]
    pages = [encoded.pages[row] for row in expected.pages[0]]
    assert found == [(Path(page.doc_id).stem, page.page_number) for page in pages]
    assert [answer.score for answer in answers] == pytest.approx(expected.scores[0].tolist(), abs=1e-5)
    assert [answer.rank for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert all(len(answer.section.split()) == 4 and answer.since == "" for answer in answers)


def test_a_page_that_says_what_is_asked_comes_first(indexed):
    write_pdf(indexed.folder / "answer.pdf", "zephyr zephyr zephyr", QUESTION, outline=[("The answer is here", 1)])
    indexed.index()
    best = ask(indexed.out, QUESTION, 1).main[0]
    assert (best.document, best.page, best.section) == ("answer", 2, "The answer is here")


def test_sections_run_on_until_the_next_one(indexed):
    outline = [("Part one", 1), ("Anchors", 1), ("Basins", 3)]
    write_pdf(indexed.folder / "long.pdf", *[f"{word} anchor" for word in WORDS[:5]], outline=outline)
    indexed.index()
    (long,) = [
        d for d in read_indexed(indexed.out, read_facts(indexed.out).fingerprints).values() if d.doc_id == "long"
    ]
    assert [page.section for page in long.pages] == ["", "Part one / Anchors", "Anchors", "Basins", "Basins"]


def test_only_what_changed_is_embedded_again(indexed, monkeypatch):
    indexed.index()
    before = {path: path.stat().st_mtime_ns for path in (indexed.out / "documents").iterdir()}
    asked = []
    embed = index_module.embed_document
    monkeypatch.setattr(
        index_module,
        "embed_document",
        lambda retrievers, document: asked.append(document.doc_id) or embed(retrievers, document),
    )
    assert indexed.index().embedded == () and asked == []
    write_pdf(indexed.folder / "handbook-1.pdf", "anchor basin", "canal delta")
    report = indexed.index()
    assert asked == ["handbook-1"] and report.embedded == ("handbook-1",) and report.removed == ("handbook-1",)
    assert (report.documents, report.pages, report.kept) == (4, 11, 3)
    kept = {path: path.stat().st_mtime_ns for path in (indexed.out / "documents").iterdir()}
    assert len(set(kept.items()) & set(before.items())) == 3
    assert points(indexed.out)[1] == 11
    assert "Gone or changed since: handbook-1." in report.lines()


def test_a_renamed_file_is_not_embedded_again(indexed, monkeypatch):
    indexed.index()
    (indexed.folder / "handbook-2.pdf").rename(indexed.folder / "renamed.pdf")
    monkeypatch.setattr(index_module, "embed_document", None)
    report = indexed.index()
    assert report.embedded == () and documents(indexed.out) == {"handbook-0", "handbook-1", "handbook-3", "renamed"}
    found = {answer.document for answer in ask(indexed.out, QUESTION, 12).main}
    assert "renamed" in found and "handbook-2" not in found


def test_a_copy_of_a_document_is_there_once(indexed):
    indexed.copy(indexed.folder / "handbook-0.pdf", indexed.folder / "copy.pdf")
    for _ in range(2):
        report = indexed.index()
        assert (report.documents, report.pages) == (4, 12)
        assert any("is a copy of" in item.reason for item in report.skipped)


def test_a_pdf_that_vanished_is_taken_out(indexed):
    indexed.index()
    gone = read_indexed(indexed.out, read_facts(indexed.out).fingerprints)
    (indexed.folder / "handbook-3.pdf").unlink()
    since = {answer.document: answer.since for answer in ask(indexed.out, QUESTION, 12).main}
    assert since["handbook-3"] == GONE and since["handbook-0"] == ""
    report = indexed.index()
    assert report.removed == ("handbook-3",) and (report.documents, report.pages) == (3, 9)
    ids, count = points(indexed.out)
    (was,) = [document for document in gone.values() if document.doc_id == "handbook-3"]
    assert count == 9 and not ids & set(was.points()[0])


def test_a_pdf_that_changed_is_said_until_it_is_indexed_again(indexed):
    indexed.index()
    write_pdf(indexed.folder / "handbook-3.pdf", QUESTION)
    answers = ask(indexed.out, QUESTION, 12)
    assert {a.document for a in answers.main if a.since == CHANGED} == {"handbook-3"}
    assert "handbook-3 (its file has changed); run miner-diag index again" in answers.lines()[0]
    indexed.index()
    assert not any(answer.since for answer in ask(indexed.out, QUESTION, 12).main)


def test_pages_without_text_cannot_be_found_and_are_named(indexed):
    write_pdf(indexed.folder / "blank.pdf", "", "anchor basin")
    report = indexed.index()
    assert report.pages == 13
    assert [(item.name, item.reason) for item in report.skipped] == [
        ("blank, page 1", "there is nothing on it that the retriever reads")
    ]


def test_a_broken_pdf_is_left_out_by_name(indexed):
    (indexed.folder / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    report = indexed.index()
    assert report.documents == 4 and [item.name for item in report.skipped] == ["broken"]


# --- faults -----------------------------------------------------------------------------------------------------------

KILLED = """
import sys, time
from pathlib import Path
import miner_diag.serving.index as index_module
from miner_diag.backbones.options import LoadOptions
from miner_diag.serving import engine, qdrant_edge_engine

folder, out, model, where = sys.argv[1:]
engine.UPLOAD_NUMBERS = 32  # a point at a time
seen = 0

def stop_at(name, call):
    def slowly(self, *given):
        global seen
        done = call(self, *given)
        seen += 1
        if name == where:
            print(name, seen, flush=True)
            time.sleep(0.2)
        return done
    return slowly

edge = qdrant_edge_engine.EdgeEngine
edge._update = stop_at("update", edge._update)
edge.optimize = stop_at("optimize", edge.optimize)
embed = index_module.embed_document
index_module.embed_document = stop_at("embed", embed)
load = LoadOptions(model, pooling="mean", device="cpu", reader="text-layer")
index_module.make_index(Path(folder), Path(out), load)
"""


@needs_edge
@pytest.mark.parametrize(
    ("where", "after"), [("embed", 1), ("embed", 3), ("update", 1), ("update", 7), ("optimize", 1)]
)
def test_killed_in_the_middle_it_is_taken_up(indexed, checkpoint, where, after):
    """Whatever was being done, the next run ends with every page, each once, and asks for nothing twice."""
    command = [sys.executable, "-c", KILLED, str(indexed.folder), str(indexed.out), str(checkpoint), where]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for _ in range(after):
        assert process.stdout.readline().startswith(where), "the run was to be killed before its end"
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    with pytest.raises(ServingError, match="was not finished.*run miner-diag index .*handbooks --out .*index again"):
        ask(indexed.out, QUESTION)
    there = len([path for path in (indexed.out / "documents").glob("[!.]*")])
    report = indexed.index()
    assert len(report.embedded) == 4 - there, "what was embedded was embedded again"
    assert (report.documents, report.pages) == (4, 12)
    ids, count = points(indexed.out)
    assert count == len(ids) == 12
    kept = read_indexed(indexed.out, report.facts.fingerprints)
    assert ids == {point for document in kept.values() for point in document.points()[0]}
    whole = ask(indexed.out, QUESTION, 12, exact=True).main
    shutil.rmtree(indexed.out)
    indexed.index()
    again = ask(indexed.out, QUESTION, 12, exact=True).main
    assert [(a.document, a.page) for a in whole] == [(a.document, a.page) for a in again]
    assert [a.score for a in whole] == pytest.approx([a.score for a in again], abs=1e-6)


@needs_edge
def test_files_of_the_engine_that_cannot_be_read_are_made_again(indexed):
    indexed.index()
    for path in indexed.out.rglob("segment.json"):
        path.write_text("{}")
    with pytest.raises(ServingError, match="the engine cannot read its files .*; run miner-diag index"):
        ask(indexed.out, QUESTION)
    report = indexed.index()
    assert report.rebuilt == ("backbone",) and report.embedded == () and points(indexed.out)[1] == 12
    assert any("were made again; nothing is lost" in line for line in report.lines())


def test_a_damaged_document_is_embedded_again(indexed, caplog):
    indexed.index()
    path = next((indexed.out / "documents").iterdir())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    report = indexed.index()
    assert len(report.embedded) == 1 and report.pages == 12 and "is damaged" in caplog.text


def test_a_full_disk_is_a_sentence_and_what_was_done_stays(indexed, monkeypatch):
    """The third document does not fit; with room made, the two before it are not embedded again."""
    written, original = [], index_module.IndexedDocument.write

    def write(self, *given):
        if len(written) == 2:
            raise PlaceError(indexed.out, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        written.append(self.doc_id)
        return original(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(index_module.IndexedDocument, "write", write)
        with pytest.raises(PlaceError, match="cannot be written .*No space left.*free space there"):
            indexed.index()
    report = indexed.index()
    assert len(report.embedded) == 2 and report.kept == 2 and report.pages == 12


def test_a_full_disk_while_points_are_sent(indexed, monkeypatch):
    def full(folder, n_bytes):
        raise PlaceError(folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    module = "qdrant_edge_engine" if default_kind() == "qdrant-edge" else "exact_engine"
    with monkeypatch.context() as patch:
        patch.setattr(f"miner_diag.serving.{module}.refuse_full_disk", full)
        with pytest.raises(PlaceError, match="No space left"):
            indexed.index()
    assert indexed.index().embedded == () and points(indexed.out)[1] == 12


def test_another_model_is_refused(indexed, other_checkpoint):
    indexed.index()
    other = replace(indexed.load, model=str(other_checkpoint))
    with pytest.raises(ServingError, match="was made with the backbone .*small-bert; got the backbone .*other-bert"):
        indexed.index(load=other)
    facts = read_facts(indexed.out)
    wrong = {"format": 1, **facts.__dict__, "load": {**facts.load, "model": str(other_checkpoint)}}
    (indexed.out / "index.json").write_text(json.dumps(sealed(wrong)))
    with pytest.raises(ServingError, match="what is loaded now is another model"):
        ask(indexed.out, QUESTION)


def test_another_setting_of_the_same_model_is_refused(indexed):
    indexed.index()
    with pytest.raises(ServingError, match="vectors cannot be compared"):
        indexed.index(load=replace(indexed.load, max_tokens=20))


@needs_edge
def test_another_engine_or_quantization_is_refused(indexed):
    indexed.index()
    with pytest.raises(ServingError, match="was made with quantization none; got int8"):
        indexed.index(quantization="int8")
    with pytest.raises(ServingError, match="was made with engine qdrant-edge; got exact"):
        indexed.index(engine="exact")


def test_an_index_of_another_width_is_refused(indexed):
    """The engine holds vectors of 32 coordinates, and the facts say 16."""
    indexed.index()
    content = json.loads((indexed.out / "index.json").read_text())
    content.pop(SEAL)
    content["widths"] = {"backbone": 16}
    (indexed.out / "index.json").write_text(json.dumps(sealed(content)))
    with pytest.raises(EngineError, match="holds points of Space.*width=32.*expected Space.*width=16"):
        ask(indexed.out, QUESTION)


def test_an_index_of_another_version_is_refused(indexed):
    indexed.index()
    content = json.loads((indexed.out / "index.json").read_text())
    content.pop(SEAL)
    (indexed.out / "index.json").write_text(json.dumps(sealed({**content, "format": 2})))
    for use in (indexed.index, lambda: ask(indexed.out, QUESTION)):
        with pytest.raises(ServingError, match="has index format 2, this version reads 1; make it again"):
            use()


def test_facts_that_were_changed_are_refused(indexed):
    indexed.index()
    path = indexed.out / "index.json"
    path.write_text(path.read_text().replace("handbooks", "elsewhere"))
    with pytest.raises(ServingError, match="is damaged .it was changed after it was written"):
        ask(indexed.out, QUESTION)


HOLDER = """
import sys, time
from pathlib import Path
from miner_diag.locks import lock_folder
lock = lock_folder(Path(sys.argv[1]), "miner-diag index")
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_gets_a_sentence(indexed):
    indexed.index()
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(indexed.out)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        for use in (indexed.index, lambda: ask(indexed.out, QUESTION)):
            with pytest.raises(
                FolderInUseError, match=r"in use by another command \(miner-diag index, process \d+\); an index"
            ):
                use()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert ask(indexed.out, QUESTION).main, "the lock ended with its process"


def test_the_lock_is_let_go_after_an_error(indexed, other_checkpoint):
    indexed.index()
    with pytest.raises(ServingError):
        indexed.index(load=replace(indexed.load, model=str(other_checkpoint)))
    holder = HOLDER.replace("time.sleep(60)", "")
    subprocess.run([sys.executable, "-c", holder, str(indexed.out)], check=True, cwd=ROOT)


def test_what_is_no_index_is_left_alone(indexed, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    with pytest.raises(ServingError, match="must be an index or a new folder; .* holds other files, as thesis.txt"):
        indexed.index(index=tmp_path / "notes")
    with pytest.raises(ServingError, match="is no index .*; make one with miner-diag index FOLDER --out"):
        ask(tmp_path / "notes", QUESTION)
    assert sorted(path.name for path in (tmp_path / "notes").iterdir()) == ["thesis.txt"]
    with pytest.raises(CorpusError, match="holds no PDF"):
        indexed.index(folder=tmp_path / "notes")
    assert not indexed.out.exists()


def test_another_folder_does_not_empty_an_index(indexed, tmp_path):
    indexed.index()
    (tmp_path / "other").mkdir()
    write_pdf(tmp_path / "other" / "a.pdf", "anchor")
    with pytest.raises(ServingError, match="is the index of .*handbooks; got the folder .*other"):
        indexed.index(folder=tmp_path / "other")
    indexed.folder.rename(tmp_path / "moved")
    report = indexed.index(folder=tmp_path / "moved")
    assert report.embedded == () and report.documents == 4 and read_facts(indexed.out).folder == str(tmp_path / "moved")


@pytest.mark.parametrize(("question", "k", "sentence"), [("  ", 5, "must be a text"), ("a", 0, "k must be at least 1")])
def test_questions_that_are_none(indexed, question, k, sentence):
    with pytest.raises(ServingError, match=sentence):
        ask(indexed.out, question, k)


# --- on a server ------------------------------------------------------------------------------------------------------


@needs_client
@pytest.mark.filterwarnings("ignore:Local mode performs exact")
def test_points_on_a_server_are_sent_again_where_it_lost_them(indexed, monkeypatch):
    """The client's imitation of a server stands for one that outlives our processes."""
    from qdrant_client import QdrantClient

    from miner_diag.serving import qdrant_server_engine

    client = QdrantClient(":memory:")
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr(qdrant_server_engine, "connect", lambda url: client)
    server = ServerOptions("http://somewhere:6333", "manuals")
    report = indexed.index(server=server)
    assert report.facts.engine == "qdrant-server" and read_facts(indexed.out).server["qdrant_url"] == server.qdrant_url
    assert client.count("manuals-backbone").count == 12
    best = ask(indexed.out, QUESTION, 3, exact=True).main
    client.delete_collection("manuals-backbone")
    report = indexed.index(server=server)
    assert report.embedded == () and client.count("manuals-backbone").count == 12
    assert ask(indexed.out, QUESTION, 3, exact=True).main == best
    with pytest.raises(ServingError, match="was made with engine qdrant-server"):
        indexed.index(engine="exact")


# --- with a fusion ----------------------------------------------------------------------------------------------------


def test_a_fusion_answers_with_its_backbone_beside_out_of_one_forward(fitted, tmp_path, monkeypatch):
    from miner_diag.backbones.options import LoadOptions
    from miner_diag.backbones.text_encoder import TextEncoder
    from miner_diag.serving import FusedRetriever

    forwards, embed = [], TextEncoder.embed_chosen
    monkeypatch.setattr(
        TextEncoder,
        "embed_chosen",
        lambda self, batch, layers: forwards.append(len(batch)) or embed(self, batch, layers),
    )
    out = tmp_path / "index"
    report = make_index(fitted.documents, out, LoadOptions(), fitted.fusion)
    assert list(report.facts.widths) == ["fused", "backbone"] and report.documents == 20
    assert sum(forwards) == report.pages == 100, "a page passed through the backbone more than once"
    kept = read_indexed(out, report.facts.fingerprints)
    for name, retriever in {
        "fused": FusedRetriever.from_run(fitted.fusion),
        "backbone": FusedRetriever.from_run(fitted.fusion, "backbone"),
    }.items():
        document = next(iter(kept.values()))
        alone = retriever.encode_pages([fitted.documents / f"{document.doc_id}.pdf"]).vectors
        assert np.abs(document.vectors[name] - alone).max() < 1e-5
        expected = retriever.encode_queries([QUESTION])[0]
        assert np.abs(report.facts.retrievers().encode_query(QUESTION)[name] - expected).max() < 1e-5
    answers = ask(out, QUESTION, 3)
    assert list(answers.found) == ["fused", "backbone"] and answers.main == answers.found["fused"]
    with pytest.raises(ServingError, match="--pooling has no effect beside --run"):
        make_index(fitted.documents, tmp_path / "more", LoadOptions(pooling="cls"), fitted.fusion)
    moved = tmp_path / "moved"
    shutil.copytree(fitted.fusion, moved)
    assert ask(out, QUESTION, 3, run=moved).main == answers.main


def test_a_run_beside_an_index_of_a_backbone_is_refused(indexed, fitted):
    indexed.index()
    with pytest.raises(ServingError, match="run has no effect: the index is of a backbone"):
        ask(indexed.out, QUESTION, run=fitted.fusion)
    with pytest.raises(ServingError, match="got the fusion run"):
        from miner_diag.backbones.options import LoadOptions

        indexed.index(load=LoadOptions(), run=fitted.fusion)
