import json

import pytest

from miner_diag.backbones import BackboneError, CheckpointError
from miner_diag.backbones.families import (
    FAMILIES,
    LATE_CLASSES,
    TEXT,
    brings_code,
    check_family,
    family_named,
    find_family,
    late_class,
)
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
        ({"model_type": "qwen3_vl", "_name_or_path": "eagerworks/eager-embed-v1"}, "eager"),
        ({"model_type": "qwen2_5_vl", "_name_or_path": "moca-embed/MoCa-Qwen25VL-3B"}, "moca"),
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
    assert family_named("text") is TEXT
    with pytest.raises(BackboneError, match="model_family must be one of qwen3_vl, .*, text; got 'gpt'"):
        family_named("gpt")


def test_a_family_must_fit_the_type_that_the_files_state(tmp_path):
    folder = folder_of(tmp_path, model_type="qwen2_vl")
    for name in ("gme", "dse", "text"):
        check_family(family_named(name), folder, "tiny")
    with pytest.raises(
        BackboneError,
        match="--model-family clip does not fit tiny, whose config.json states the model type qwen2_vl; clip is made "
        "of clip. Leave it out, or name one of: gme, dse, text",
    ):
        check_family(family_named("clip"), folder, "tiny")
    unstated = folder_of(tmp_path, "unstated")
    check_family(family_named("clip"), unstated, "tiny")


def test_code_of_its_own_may_be_of_any_type_but_that_of_another_family(tmp_path):
    code = {"auto_map": {"AutoModel": "made.Model"}}
    check_family(family_named("qwen3_vl"), folder_of(tmp_path, "new", model_type="something_new", **code), "tiny")
    with pytest.raises(BackboneError, match="--model-family qwen3_vl does not fit tiny"):
        check_family(family_named("qwen3_vl"), folder_of(tmp_path, "old", model_type="clip", **code), "tiny")


def test_an_adapter_is_of_a_family_that_takes_adapters(tmp_path):
    base = folder_of(tmp_path, "base", model_type="qwen2_5_vl")
    adapter = folder_of(tmp_path, "adapter", adapter={})
    check_family(family_named("biqwen2_5"), adapter, "tiny", base)
    for name in ("jina_v4", "text"):
        with pytest.raises(BackboneError, match=f"--model-family {name} does not fit tiny, which is an adapter"):
            check_family(family_named(name), adapter, "tiny", base)


@pytest.mark.parametrize("retriever", LATE_CLASSES, ids=lambda retriever: retriever.name)
def test_a_late_class_is_told_by_its_architecture(tmp_path, retriever):
    folder = folder_of(tmp_path, architectures=[retriever.name], model_type=retriever.model_types[0])
    assert late_class(folder) is retriever
    assert late_class(folder_of(tmp_path, "bert", architectures=["BertModel"], model_type="bert")) is None
    assert late_class(folder_of(tmp_path, "empty")) is None
    with pytest.raises(CheckpointError, match="is a colidefics: many vectors a page; .*ColPali.*; it names none"):
        late_class(folder_of(tmp_path, "other", model_type="colidefics"))


@pytest.mark.parametrize(
    ("config", "tokenizer", "brings"),
    [
        ({"auto_map": {"AutoModel": "made.Model"}}, {}, True),
        ({"auto_map": {"AutoConfig": "made.Config"}}, {}, True),
        ({"auto_map": {"AutoModelForCausalLM": "made.Model"}}, {}, False),  # a class that is not loaded here
        ({"model_type": "bert"}, {"auto_map": {"AutoTokenizer": ["made.Tokenizer", None]}}, True),
        ({"model_type": "bert"}, {"auto_map": ["made.Tokenizer", None]}, True),
        ({"model_type": "bert"}, {}, False),
    ],
)
def test_code_is_what_the_configurations_name(tmp_path, config, tokenizer, brings):
    folder = folder_of(tmp_path, **config)
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "train.py").write_text("")  # a Python file alone is nothing that would be run
    assert brings_code(folder) is brings
