import json

import pytest

from miner_diag.backbones import BackboneError, CheckpointError
from miner_diag.backbones.families import FAMILIES, TEXT, family_named, find_family
from miner_diag.backbones.pipeline import is_adapter


def folder_of(tmp_path, name="checkpoint", adapter=None, **config):
    folder = tmp_path / name
    folder.mkdir()
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    if adapter is not None:
        (folder / "adapter_config.json").write_text(json.dumps(adapter))
    return folder


@pytest.mark.parametrize(
    ("config", "family"),
    [
        ({"model_type": "qwen3_vl", "architectures": ["Qwen3VLForConditionalGeneration"]}, "qwen3_vl"),
        ({"model_type": "qwen2_vl", "_name_or_path": "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct"}, "gme"),
        ({"model_type": "qwen2_vl", "architectures": ["GmeQwen2VLForVision"]}, "gme"),
        ({"model_type": "qwen2_5_vl", "architectures": ["JinaEmbeddingsV4Model"]}, "jina_v4"),
        ({"model_type": "qwen2_5_vl", "auto_map": {"AutoModel": "modeling_jina_embeddings_v4.X"}}, "jina_v4"),
        ({"model_type": "llama_nemotron_vl"}, "nemotron_vl"),
        ({"model_type": "modernvbert"}, "modernvbert"),
        ({"model_type": "siglip"}, "siglip"),
        ({"model_type": "siglip2"}, "siglip2"),
        ({"model_type": "clip"}, "clip"),
    ],
)
def test_the_configuration_tells(tmp_path, config, family):
    assert find_family(folder_of(tmp_path, **config)).name == family


def test_a_name_tells_where_the_configuration_does_not(tmp_path):
    assert find_family(folder_of(tmp_path, "dse-qwen2-2b-mrl-v1", model_type="qwen2_vl")).name == "dse"
    plain = folder_of(tmp_path, "snapshot", model_type="qwen2_vl")
    assert find_family(plain, name="MrLight/dse-qwen2-2b-mrl-v1").name == "dse"


def test_an_adapter_is_of_its_base_models_type(tmp_path):
    adapter = {"base_model_name_or_path": "Qwen/Qwen2.5-VL-3B-Instruct"}
    assert find_family(folder_of(tmp_path, adapter=adapter)).name == "biqwen2_5"
    base = folder_of(tmp_path, "base", model_type="qwen2_5_vl")
    unnamed = folder_of(tmp_path, "unnamed", adapter={})
    assert find_family(unnamed, base_model=base).name == "biqwen2_5"


def test_an_adapter_beside_a_configuration_is_still_an_adapter(tmp_path):
    adapter = {"base_model_name_or_path": "Qwen/Qwen2.5-VL-3B-Instruct"}
    folder = folder_of(tmp_path, adapter=adapter, model_type="qwen2_5_vl")
    assert find_family(folder).name == "biqwen2_5" and is_adapter(folder)
    (folder / "model.safetensors").write_bytes(b"")
    assert not is_adapter(folder)


def test_what_several_retrievers_are_made_of_is_asked_for(tmp_path):
    with pytest.raises(CheckpointError, match=r"several retrievers .*--model-family gme .*--model-family dse"):
        find_family(folder_of(tmp_path, model_type="qwen2_vl"))


def test_text_encoders_and_late_interaction(tmp_path):
    assert find_family(folder_of(tmp_path, "text", model_type="bert")) is TEXT
    with pytest.raises(CheckpointError, match="is a colqwen2: many vectors a page"):
        find_family(folder_of(tmp_path, "late", model_type="colqwen2"))


def test_forcing_a_family():
    assert {family_named(family.name) for family in FAMILIES} == set(FAMILIES)
    with pytest.raises(BackboneError, match="model_family must be one of qwen3_vl, .*; got 'gpt'"):
        family_named("gpt")
