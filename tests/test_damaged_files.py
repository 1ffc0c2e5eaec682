"""Every kind of file that is read back, with a bit flipped: it is refused or made anew, or means what it meant."""

import errno
import json
import os
import shutil

import pytest

from miner_diag.backbones.ocr import PictureReader
from miner_diag.backbones.revision import folder_revision
from miner_diag.corpus.benchmark_lock import check_lock, lock_path
from miner_diag.corpus.document import read_document
from miner_diag.embeddings.shards import DamagedStoreError
from miner_diag.runs import RunFolder, begin_run, read_run, read_run_records
from tests.corpus.files import handbook
from tests.damage import one_bit_flipped


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINER_DIAG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def the_file(folder):
    (path,) = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return path


def made_anew_or_equal(path, read, caplog, what):
    """Read with each flipped bit: the answer stays, and what was damaged is written again with a sentence."""
    expected, whole, n_anew = read(), path.read_bytes(), 0
    for changed in one_bit_flipped(whole):
        path.write_bytes(changed)
        caplog.clear()
        assert read() == expected
        if caplog.records:
            assert str(path) in caplog.text and what in caplog.text and path.read_bytes() == whole
            n_anew += 1
    assert n_anew > 25


def test_cached_documents(cache, tmp_path, caplog):
    (tmp_path / "a.pdf").write_bytes(handbook("a handbook of valves", 3))
    read_document(tmp_path / "a.pdf", "a")
    made_anew_or_equal(
        the_file(cache), lambda: read_document(tmp_path / "a.pdf", "a"), caplog, "the document is read again"
    )


class OneLineReader(PictureReader):
    def describe(self):
        return "a reader"

    def _recognise(self, pixels):
        return ["a line that was read", "and another one"], True


def test_words_read_from_pictures(cache, caplog):
    from PIL import Image

    picture = Image.new("RGB", (4, 4))
    OneLineReader().read(picture)
    made_anew_or_equal(the_file(cache), lambda: OneLineReader().read(picture), caplog, "the picture is read again")


def test_hashes_of_checkpoints(cache, tmp_path, caplog):
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).write_text(name)
    folder_revision(tmp_path / "model")
    made_anew_or_equal(the_file(cache), lambda: folder_revision(tmp_path / "model"), caplog, "are hashed again")


def test_locks_of_data_sets(cache):
    facts = {"name": "data", "revision": "0" * 40, "counts": {"pages": 3}, "sha256": "1" * 64}
    path = lock_path("data", "0" * 40)
    check_lock(path, facts, write=True)
    assert path == the_file(cache)
    for changed in one_bit_flipped(path.read_bytes()):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="which says what this data set was at its first load, is damaged"):
            check_lock(path, facts, write=True)


def test_run_and_records(tmp_path, capsys):
    from miner_diag.records import Record

    run = RunFolder(tmp_path / "run", "miner_diag.cka", {"option": 3})
    run.records([Record("m", "1", "d", "all", "cka", 0.123456 * n, layer=n) for n in range(9)])
    run.finish(facts={"folds": {"0": "."}})

    def read():
        content = read_run(tmp_path / "run", "miner_diag.cka")
        return content, read_run_records(tmp_path / "run", content)

    expected = read()
    for name in ("run.json", "records.jsonl"):
        path = shutil.copy(tmp_path / "run" / name, tmp_path / "whole")
        n_refused = 0
        for changed in one_bit_flipped(path.read_bytes()):
            (tmp_path / "run" / name).write_bytes(changed)
            try:
                assert read() == expected
            except ValueError as error:
                assert name in str(error) or "is a run of" in str(error)
                assert "again" in str(error) or "is a run of" in str(error)
                n_refused += 1
        assert n_refused > 25
        shutil.copy(path, tmp_path / "run" / name)


def test_a_run_of_an_earlier_version_is_read_with_a_warning(tmp_path, caplog):
    (tmp_path / "run.json").write_text(json.dumps({"command": "miner_diag.cka", "options": {}}))
    assert read_run(tmp_path)["options"] == {}
    assert f"{tmp_path / 'run.json'} was written by an earlier version, without a hash" in caplog.text


def test_a_damaged_run_does_not_block_its_folder_without_a_way_out(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run.json is damaged, .*; delete that file, or choose another --out"):
        begin_run(tmp_path, "miner_diag.cka", {})
    (tmp_path / "run.json").write_text(json.dumps({"command": "miner_diag.cka", "format": 2, "facts_sha256": "0"}))
    begin_run(tmp_path, "miner_diag.cka", {})  # what it held is replaced
    assert not (tmp_path / "run.json").exists()


def test_noise_floors(tmp_path, caplog):
    from miner_diag.embeddings import EmbeddedCorpus, StoreOptions
    from tests.embeddings.helpers import PretendBackbone, three_splits

    corpus, backbone = three_splits(), PretendBackbone()
    backbone.noise = 1e-6

    def take():
        return EmbeddedCorpus(corpus, backbone, StoreOptions(tmp_path), progress=False).take(corpus).noise.as_dict()

    expected = take()
    (path,) = tmp_path.glob("*/noise/*.json")
    n_refused = 0
    for changed in one_bit_flipped(path.read_bytes(), 12):
        path.write_bytes(changed)
        try:
            assert take() == expected
        except DamagedStoreError as error:
            assert str(path) in str(error) and "Delete this file" in str(error)
            n_refused += 1
    assert n_refused > 12


def test_the_shipped_line_reader(tmp_path, monkeypatch):
    from miner_diag.backbones.errors import CheckpointError
    from miner_diag.backbones.page_vision import trained

    monkeypatch.setattr(trained, "FILE", tmp_path / trained.FILE.name)
    whole = trained.MANIFEST.with_suffix(".safetensors").read_bytes()
    for changed in one_bit_flipped(whole, 6):
        trained.FILE.write_bytes(changed)
        trained.trained_sha256.cache_clear()
        with pytest.raises(CheckpointError, match=r"page-vision.safetensors is damaged: .*; install the package again"):
            trained.load_line_reader(trained.FILE)
    trained.FILE.write_bytes(whole)
    trained.trained_sha256.cache_clear()
    trained.load_line_reader(trained.FILE)
    trained.trained_sha256.cache_clear()


def test_saved_systems_and_fusions(tmp_path):
    from miner_diag.fusion import FittedTo, Fusion, FusionError
    from miner_diag.fusion.saved_systems import read_fitted_to

    fusion = Fusion.identity(3, 4)
    fusion.save(tmp_path, {"backbone": "b"})
    FittedTo("c", "hidden", 0, {"train": ("a",), "validation": ("b",)}, {"train": ("1",), "validation": ("2",)}).write(
        tmp_path
    )

    def read():
        loaded = Fusion.load(tmp_path, {"backbone": "b"})
        content = {name: value.numpy().tobytes() for name, value in loaded.state_dict().items()}
        return content, loaded.facts(), read_fitted_to(tmp_path)

    expected = read()
    for name in ("fusion.safetensors", "fusion.json", "fitted_to.json"):
        path, n_refused = tmp_path / name, 0
        whole = path.read_bytes()
        for changed in one_bit_flipped(whole):
            path.write_bytes(changed)
            try:
                assert read() == expected
            except FusionError as error:
                assert str(tmp_path) in str(error) and "fit again" in str(error)
                n_refused += 1
        assert n_refused > 25
        path.write_bytes(whole)


def test_a_fusion_of_the_first_format_is_read_with_a_warning(tmp_path, caplog):
    from miner_diag.fusion import Fusion, FusionError

    Fusion.identity(3, 4).save(tmp_path, {"backbone": "b"})
    facts = json.loads((tmp_path / "fusion.json").read_text()) | {"format": 1}
    (tmp_path / "fusion.json").write_text(json.dumps(facts))
    with pytest.raises(FusionError, match=r"fusion.json was changed after it was written"):
        Fusion.load(tmp_path)  # it has a hash, so it is no file of the first format
    del facts["facts_sha256"]
    (tmp_path / "fusion.json").write_text(json.dumps(facts))
    Fusion.load(tmp_path)
    assert "fusion.json has fusion format 1, without a hash of its facts" in caplog.text


def test_a_cache_that_cannot_be_used_is_blamed_not_the_documents(cache, tmp_path, monkeypatch):
    from miner_diag.corpus.folder import load_folder
    from miner_diag.files import PlaceError

    (tmp_path / "pdfs").mkdir()
    (tmp_path / "pdfs" / "a.pdf").write_bytes(handbook("a handbook of valves", 3))
    with monkeypatch.context() as patch:
        cache.write_text("no folder")
        with pytest.raises(PlaceError, match=r"/cache/documents/.*.json cannot be (read|written) .*MINER_DIAG_CACHE"):
            load_folder(tmp_path / "pdfs")
        cache.unlink()

        def full(*args):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(os, "fsync", full)
        with pytest.raises(PlaceError, match=r"/cache/documents/.* cannot be written \(No space left on device\)"):
            load_folder(tmp_path / "pdfs")
    assert load_folder(tmp_path / "pdfs").queries
