"""Lines of shipped documents, labelled by their text layers, and a reader that learns from them."""

import json
from functools import partial

import numpy as np
import pytest
from safetensors import safe_open

from miner_diag.backbones.base import CheckpointError
from miner_diag.backbones.page_vision.alphabet import OTHER
from miner_diag.backbones.page_vision.line_reader import LineReader
from miner_diag.backbones.page_vision.lines import HEIGHT
from miner_diag.backbones.page_vision.trained import load_line_reader, trained_facts
from miner_diag.corpus import load_corpus
from miner_diag.corpus.hiding import letters
from miner_diag.training_state import keep_state
from tests.damage import one_bit_flipped
from tools.train_line_reader import line_shards, reader_training
from tools.train_line_reader.__main__ import main
from tools.train_line_reader.labelled_lines import draw_pages, page_lines
from tools.train_line_reader.line_shards import cut_pages
from tools.train_line_reader.reader_training import batches, edit_distance, score_reader, train_reader, written
from tools.train_line_reader.run import save_trained


@pytest.fixture(scope="module")
def corpus():
    return load_corpus("sample", queries="verbatim")


@pytest.fixture(scope="module")
def lines(corpus):
    path = corpus.renderer.paths["jflex-manual"]
    return [line for number in (5, 6) for line in page_lines(path, number)]


def test_labels_are_the_lines_of_the_text_layer(corpus, lines):
    pages = {p.page_id: p.text for p in corpus.pages}
    text = letters("".join(pages[f"jflex-manual/{number}"] for number in (5, 6)))[0]
    assert len(lines) > 40
    in_text = [letters(written(line))[0] in text for line in lines if not (line.labels == OTHER).any()]
    assert np.mean(in_text) > 0.95 and len(in_text) > 40


def test_columns_are_inside_the_line_and_rise(lines):
    for line in lines:
        assert line.pixels.shape[0] == HEIGHT
        assert len(line.labels) == len(line.columns) >= 2
        assert line.columns.min() >= 0 and line.columns.max() < line.pixels.shape[1]
        assert np.all(np.diff(line.columns) > -6)


def test_ink_stands_at_the_columns(lines):
    """Labels of a text layer that is shifted against the picture would still be spelled right."""
    at_labels, anywhere = [], []
    for line in lines:
        ink = line.pixels.max(axis=0) > 100
        columns = line.columns[line.labels != 1].astype(int)
        at_labels.append(np.mean([ink[max(0, c - 3) : c + 4].any() for c in columns]))
        anywhere.append(ink.mean())
    assert np.mean(at_labels) > 0.99 > 0.95 > np.mean(anywhere)


def test_a_page_that_is_not_there_has_no_line(corpus, tmp_path):
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"no PDF")
    assert page_lines(broken, 1) == []


def test_lines_are_drawn_by_the_seed(corpus):
    pages = [(corpus.renderer.paths["jflex-manual"], 5)]
    one, same, other = (next(iter(draw_pages(pages, 5, seed))) for seed in (0, 0, 1))
    assert [written(line) for line in one] == [written(line) for line in same]
    assert [written(line) for line in one] != [written(line) for line in other]
    assert len(one) == 5


def test_edit_distance_by_hand():
    assert [edit_distance(*pair) for pair in (("", ""), ("", "abc"), ("abc", ""), ("kitten", "sitting"))] == [
        0,
        3,
        3,
        3,
    ]


def test_training_lowers_the_error_and_is_seeded(lines):
    few = sorted(lines, key=lambda line: line.pixels.shape[1])[:24]
    before = score_reader(LineReader().eval(), few)
    reader = train_reader(few, steps=60, seed=0, columns=4000)
    after = score_reader(reader, few)
    assert after.character_error < 0.6 < before.character_error
    again = train_reader(few, steps=3, seed=1, columns=4000)
    same = train_reader(few, steps=3, seed=1, columns=4000)
    for one, other in zip(again.state_dict().values(), same.state_dict().values(), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_training_that_was_stopped_ends_with_the_same_numbers(lines, tmp_path, monkeypatch, bfloat16, caplog):
    monkeypatch.setattr(reader_training, "KEEP_EVERY", 2)
    train = partial(train_reader, lines[:12], steps=6, seed=3, columns=2000, bfloat16=bfloat16)
    whole = train().state_dict()

    def stop(path, key, noted, *rest):
        keep_state(path, key, noted, *rest)
        if noted["step"] == 4:
            raise KeyboardInterrupt

    state = tmp_path / "state.safetensors"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reader_training, "keep_state", stop)
        train(state=state)
    steps = []
    monkeypatch.setattr(reader_training, "keep_state", lambda path, key, noted, *_: steps.append(noted["step"]))
    resumed = train(state=state).state_dict()
    assert steps == [6]
    for name, value in whole.items():
        np.testing.assert_array_equal(value.numpy(), resumed[name].numpy(), err_msg=name)
    train_reader(lines[:12], steps=1, seed=4, columns=2000, state=state)
    assert "is the state of another training; it is put aside" in caplog.text
    state.write_bytes(b"no state")
    assert train(state=state) and "state.safetensors is damaged (" in caplog.text


def test_the_rate_rises_and_falls():
    rates = [reader_training._share_of_rate(done) for done in (0, 0.05, 0.1, 0.55, 1)]
    np.testing.assert_allclose(rates, [0.04, 0.52, 1, 0.5, 0], atol=1e-12)


def test_shards_hold_what_was_cut_and_are_not_cut_again(corpus, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(line_shards, "PAGES_PER_SHARD", 2)
    path = corpus.renderer.paths["jflex-manual"]
    pages = [(f"jflex-manual/{number}", path, number) for number in (5, 6, 7)]
    plain = cut_pages(pages, 4, seed=0)
    assert len(plain) == 12
    written_down = cut_pages(pages, 4, seed=0, folder=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    cut_pages(pages, 4, seed=1, folder=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4, "another draw has shards of its own"
    damaged = min(tmp_path.glob("*.safetensors"))
    damaged.write_bytes(next(one_bit_flipped(damaged.read_bytes()[:-1], 4)) + b"x")
    for seed in (0, 1):
        cut_pages(pages, 4, seed=seed, folder=tmp_path)
    assert f"{damaged} is damaged (" in caplog.text and "its lines are cut again" in caplog.text
    monkeypatch.setattr(line_shards, "draw_pages", lambda *_, **__: pytest.fail("cut twice"))
    for again in (written_down, cut_pages(pages, 4, seed=0, folder=tmp_path)):
        for one, other in zip(plain, again, strict=True):
            for field in ("pixels", "labels", "columns"):
                np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_a_shard_without_a_line(tmp_path):
    line_shards.write_lines(tmp_path / "none.safetensors", [])
    assert line_shards.read_lines(tmp_path / "none.safetensors") == []


def test_the_command_writes_numbers_and_where_they_come_from(tmp_path, capsys):
    main(f"--data sample --pages 3 --lines-per-page 4 --steps 2 --columns 2000 --out {tmp_path}".split())
    assert "of words are read" in capsys.readouterr().out
    path = tmp_path / "page-vision.safetensors"
    assert isinstance(load_line_reader(path), LineReader)
    facts = trained_facts(path)
    assert facts["trained_on"] == "sample, train split, fold 0" and facts["steps"] == 2 and facts["n_lines"] <= 12
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["command"] == "tools.train_line_reader" and content["options"]["seed"] == 0
    assert content["character_error"] == facts["character_error"]
    with safe_open(path, framework="np") as file:
        assert {file.get_tensor(key).dtype.name for key in file.keys()} <= {"float16", "int64"}


def test_a_file_of_another_net_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_trained(path, {"reader": LineReader(width=64)}, {})
    with pytest.raises(CheckpointError, match="does not fill LineReader"):
        load_line_reader(path)
    with pytest.raises(CheckpointError, match="is missing"):
        load_line_reader(tmp_path / "none.safetensors")


def test_batches_hold_every_line_once_and_no_more_columns_than_asked():
    widths = [int(w) for w in np.random.default_rng(1).integers(8, 900, 200)]
    groups = batches(widths, 5000)
    assert sorted(i for group in groups for i in group) == list(range(200))
    assert all(len(group) * max(widths[i] for i in group) <= 5000 for group in groups if len(group) > 1)
    assert batches([90_000, 10], 5000) == [[1], [0]]
