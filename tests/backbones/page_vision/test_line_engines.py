import sys

import numpy as np
import pytest
import torch
from PIL import Image

from miner_diag.backbones.page_vision import line_engines, lines, picture_reader
from miner_diag.backbones.page_vision.line_engines import FoldedReader, line_engine, onnx_engine, torch_engine
from miner_diag.backbones.page_vision.line_reader import LineReader, read_lines
from miner_diag.backbones.page_vision.lines import HEIGHT
from miner_diag.backbones.page_vision.picture_reader import LinePictureReader
from miner_diag.backbones.page_vision.trained import load_line_reader
from miner_diag.corpus import load_corpus


@pytest.fixture(scope="module")
def reader():
    """A reader whose batch norms are not the identity."""
    torch.manual_seed(1)
    reader = LineReader()
    for module in reader.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                torch.nn.init.uniform_(values, 0.5, 2.0)
            for values in (module.bias, module.running_mean):
                torch.nn.init.normal_(values)
    return reader.eval()


@pytest.fixture(scope="module")
def page_lines():
    corpus = load_corpus("sample", queries="verbatim")
    found = []
    for page in ("hcl-colors/2", "iranges-overview/1", "minimap2-paper/2"):
        picture = corpus.render(page, LinePictureReader.longest_side)
        found += [line.pixels for line in lines.find_lines(Image.fromarray(np.asarray(picture)))]
    return found


@pytest.mark.parametrize("width", [8, 10, 64, 250])
def test_folding_changes_no_score(reader, width):
    pixels = torch.rand(3, 1, HEIGHT, width)
    with torch.inference_mode():
        expected = reader(pixels).transpose(1, 2)
        torch.testing.assert_close(FoldedReader(reader)(pixels), expected, atol=1e-4, rtol=1e-4)


def test_folding_leaves_the_trained_reader_alone(reader):
    before = {name: value.clone() for name, value in reader.state_dict().items()}
    FoldedReader(reader)
    assert all(torch.equal(value, before[name]) for name, value in reader.state_dict().items())


@pytest.mark.parametrize(("n_lines", "width"), [(1, 32), (5, 96), (2, 1216)])
def test_both_engines_give_the_same_classes(reader, n_lines, width):
    folded = FoldedReader(reader)
    pixels = np.random.default_rng(width).random((n_lines, 1, HEIGHT, width), dtype=np.float32)
    by_torch, by_onnx = torch_engine(folded)(pixels), onnx_engine(folded)(pixels)
    assert by_torch.shape == (n_lines, width // 2) and by_torch.std() > 0
    np.testing.assert_array_equal(by_torch, by_onnx)


def test_both_engines_read_the_same_text_of_real_pages(page_lines):
    """The words in the cache do not depend on what is installed."""
    folded = FoldedReader(load_line_reader())
    by_torch = read_lines(page_lines, torch_engine(folded))
    assert len(by_torch) > 150 and sum(map(len, by_torch)) > 5_000
    assert by_torch == read_lines(page_lines, onnx_engine(folded))


def test_onnx_runtime_is_used_where_it_is_installed_and_torch_elsewhere(reader, monkeypatch):
    used = []
    monkeypatch.setattr(line_engines, "onnx_engine", lambda _: used.append("onnx"))
    monkeypatch.setattr(line_engines, "torch_engine", lambda _: used.append("torch"))
    line_engine(reader)
    for missing in ("onnx", "onnxruntime"):
        monkeypatch.setattr(line_engines.importlib.util, "find_spec", lambda name, missing=missing: name != missing)
        line_engine(reader)
    assert used == ["onnx", "torch", "torch"]


def test_torch_alone_reads_without_the_extra(monkeypatch):
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails
    monkeypatch.setattr(line_engines.importlib.util, "find_spec", lambda name: None)
    picture_reader._reader.cache_clear()
    try:
        assert LinePictureReader()._recognise(np.full((64, 64, 3), 255, dtype=np.uint8)) == ([], True)
        picture_reader._reader()
    finally:
        picture_reader._reader.cache_clear()
