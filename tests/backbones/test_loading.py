import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from miner_diag.backbones import BackboneError, CheckpointError
from miner_diag.backbones.loading import choose_device, load_model, load_tokenizer

CPU = {"dtype": torch.float32, "device": torch.device("cpu")}


def change_weights(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def test_a_missing_weight_is_refused_by_name(copy_of, tiny_bert):
    folder = change_weights(copy_of(tiny_bert), lambda w: w.pop("encoder.layer.1.output.dense.weight"))
    with pytest.raises(CheckpointError, match=r"1 missing .*random.*: encoder\.layer\.1\.output\.dense\.weight"):
        load_model(folder, **CPU)


def test_an_unexpected_weight_is_refused_by_name(copy_of, tiny_bert):
    folder = change_weights(copy_of(tiny_bert), lambda w: w.update({"encoder.adapter.weight": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"1 in the file without a place in the model: encoder\.adapter\.weight"):
        load_model(folder, **CPU)


def test_a_weight_of_another_shape_is_refused(copy_of, tiny_bert):
    folder = change_weights(
        copy_of(tiny_bert), lambda w: w.update({"encoder.layer.0.output.dense.weight": torch.zeros(3, 3)})
    )
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.0\.output\.dense\.weight"):
        load_model(folder, **CPU)


def test_unused_heads_and_a_missing_pooler_are_harmless(copy_of, tiny_bert, tiny_decoder):
    def change(weights):
        weights.pop("pooler.dense.weight")
        weights["cls.predictions.bias"] = torch.zeros(4)
        weights["embeddings.position_ids"] = torch.arange(48)

    assert not load_model(change_weights(copy_of(tiny_bert), change), **CPU).training
    folder = change_weights(copy_of(tiny_decoder), lambda w: w.update({"lm_head.weight": torch.zeros(64, 32)}))
    assert load_model(folder, **CPU).config.use_cache is False


def test_nothing_of_a_loaded_model_is_trained(tiny_bert):
    assert not any(weight.requires_grad for weight in load_model(tiny_bert, **CPU).parameters())


def test_an_unknown_architecture_and_missing_weights_are_sentences(copy_of, tiny_bert):
    folder = copy_of(tiny_bert)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded: OSError"):
        load_model(folder, **CPU)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of"}))
    with pytest.raises(CheckpointError, match="cannot be loaded: .*unheard-of"):
        load_model(folder, **CPU)


def test_an_encoder_decoder_is_refused(copy_of, tiny_bert):
    folder = copy_of(tiny_bert)
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", "num_layers": 2, "d_model": 32}))
    with pytest.raises(CheckpointError, match=r"is an encoder-decoder \(t5\)"):
        load_model(folder, **CPU)


def test_remote_code_is_run_only_on_the_flag(copy_of, tiny_bert):
    folder = copy_of(tiny_bert)
    config = json.loads((folder / "config.json").read_text())
    custom = {"auto_map": {"AutoConfig": "custom.C", "AutoModel": "custom.M"}, "model_type": "custom-x"}
    (folder / "config.json").write_text(json.dumps({**config, **custom}))
    (folder / "custom.py").write_text("raise SystemExit('this code must not run')")
    with pytest.raises(CheckpointError, match="--trust-remote-code runs that code with your rights"):
        load_model(folder, **CPU)


def test_a_folder_without_tokenizer_is_refused(copy_of, tiny_bert):
    folder = copy_of(tiny_bert)
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="no tokenizer can be loaded from"):
        load_tokenizer(folder)


def test_devices():
    assert choose_device("cpu", "tiny").type == "cpu"
    assert choose_device("auto", "tiny").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(BackboneError, match="tiny cannot run with --device cuda: torch sees no GPU here; use --"):
            choose_device("cuda", "tiny")


def test_a_gpu_beyond_the_last_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1", "tiny") == torch.device("cuda:1")
    with pytest.raises(BackboneError, match="--device cuda:2: torch sees 2 GPUs, counted from 0, here"):
        choose_device("cuda:2", "tiny")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("auto", "tiny") == torch.device("cuda:1"), "processes beyond the GPUs share them"
