import importlib
import inspect
import re

import pytest
import transformers

from miner_diag.backbones import BackboneError
from miner_diag.backbones.col_vision import PROCESSORS
from miner_diag.backbones.families import family_named
from miner_diag.backbones.known import known_model, known_models, read_known
from miner_diag.backbones.machine import Machine


def class_of(model):
    module, _, name = family_named(model.family).constructor.partition(":")
    return getattr(importlib.import_module(f"miner_diag.backbones.{module}"), name)


SINGLE = [model for model in known_models() if not model.late]


@pytest.mark.parametrize("model", SINGLE, ids=lambda model: model.hub_id)
def test_a_manifest_says_what_the_code_does(model):
    family = class_of(model)
    if hasattr(family, "defaults"):
        defaults = family.defaults
        assert (model.pooling, model.query_prompt, model.page_prompt, model.max_pixels) == (
            defaults.pooling,
            defaults.query_prompt,
            defaults.page_prompt,
            defaults.max_pixels,
        )
        assert len(model.n_layers) == len(model.width) == 1
    else:
        assert model.pooling == f"{family.poolings['query']} / {family.poolings['page']}"
        assert len(model.n_layers) == len(model.width) == 2
    assert re.fullmatch("[0-9a-f]{40}", model.revision)
    assert (model.base_model is None) == (model.base_revision is None)


def test_late_manifests_say_what_the_librarys_processors_do():
    processors = {name.removesuffix("ForRetrieval").lower(): PROCESSORS[name] for name in PROCESSORS}
    late = {model.family: model for model in known_models() if model.late}
    assert set(late) == set(processors)
    for family, model in late.items():
        says = inspect.getsource(getattr(transformers, processors[family]).__init__)
        says = says.replace("\\n", "\n").replace("{self.image_token}", "<image>")
        assert f'"{model.query_prompt}"' in says and f'"{model.page_prompt}"' in says, model.hub_id
        assert model.revision is not None or "none is pinned" in model.notes


def test_every_family_has_a_known_checkpoint_and_the_papers_are_there():
    names = {model.hub_id for model in known_models()}
    assert {"jinaai/jina-embeddings-v4", "eagerworks/eager-embed-v1", "moca-embed/MoCa-Qwen25VL-3B"} <= names
    from miner_diag.backbones.families import FAMILIES

    assert {model.family for model in SINGLE} == {family.name for family in FAMILIES}


def test_a_checkpoint_is_known_by_its_hub_id_and_by_its_folder():
    assert known_model("Qwen/Qwen3-VL-Embedding-2B") is known_model("Qwen3-VL-Embedding-2B")
    assert known_model("Somebody/Qwen3-VL-Embedding-2B") is None
    assert known_model("nothing") is None


def test_memory_decides_what_a_machine_can_run():
    two, eight = known_model("Qwen3-VL-Embedding-2B"), known_model("Qwen3-VL-Embedding-8B")
    assert two.bf16_gb == pytest.approx(4.255064064)
    assert Machine(16, 0).verdict(two).startswith("fits the memory")
    assert Machine(8, 0).verdict(two) == "too large: needs some 5 GB on a GPU"
    assert Machine(16, 24).verdict(eight) == "fits the GPU"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("revision: main", "revision must be a full commit hash or null; got 'main'"),
        ("revision: 1234567890123456789012345678901234567890", "revision must be a text; got 12345"),
        ("colour: red", "has unknown fields ['colour']"),
        ("hub_id: null", "hub_id must be a text; got None"),
        ("hub_id: -x/../y", "hub_id must be owner/name of a hub; got '-x/../y'"),
        ("base_model: 'https://elsewhere.example/a'", "base_model must be owner/name of a hub"),
        ("width: [768, wide]", "width must be a whole number from 0 to 10^15; got 'wide'"),
        ("width: {a: 1}", "width must be a whole number"),
        ("max_pixels: '7'", "max_pixels must be a whole number"),
        ("licence: [a, list]", "licence must be a text; got ['a', 'list'] (list)"),
        ("7: seven", "the name of a field must be a text; got 7"),
    ],
)
def test_a_manifest_that_is_wrong_is_named(tmp_path, line, message):
    name, value = line.split(": ", 1)
    with pytest.raises(BackboneError, match=re.escape(message)):
        read_known(written_manifest(tmp_path, **{name: value}))


@pytest.mark.parametrize("text", ["", "- a\n- list\n", "just words", "[" * 500, "hub_id: !!bool x", "hub_id: a/b\n"])
def test_a_file_that_is_no_manifest_is_a_sentence(tmp_path, text):
    path = tmp_path / "model.yaml"
    path.write_text(text)
    with pytest.raises(BackboneError, match=r"model\.yaml"):
        read_known(path)


def written_manifest(tmp_path, **changes):
    """Write a manifest that is right but for the changes, which are YAML; return its path."""
    texts = ("family", "pooling", "query_prompt", "page_prompt", "licence", "source")
    numbers = ("max_pixels", "n_layers", "width", "parameters")
    content = {"hub_id": "a/b", "revision": "null", "protocol": "{mteb: null}"}
    content |= dict.fromkeys(texts, "x") | dict.fromkeys(numbers, 7)
    path = tmp_path / "model.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in (content | changes).items()))
    return path
