"""Every loading option of every kind of retriever has an effect, or it is refused: there is no third case."""

import json
import re
import shutil
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
import torch
from PIL import Image
from transformers import AutoModel, dynamic_module_utils

from miner_diag.backbones.base import BackboneError
from miner_diag.backbones.hub import SETTINGS
from miner_diag.backbones.options import OPTION_NAMES, LoadOptions, flag_of
from miner_diag.backbones.reader import can_read_pictures
from miner_diag.backbones.registry import RETRIEVERS, is_late, load_backbone, load_late_backbone
from miner_diag.backbones.retriever import EVERY, WHY_NOT
from tests.backbones.conftest import save_tiny, tiny_bert_config
from tests.backbones.late_checkpoints import CLASSES, save_late
from tests.backbones.tiny import save_adapter, save_dual_encoder, save_modernvbert, save_nemotron, save_qwen

FIRST, SECOND = "1" * 40, "2" * 40
"""The two commits that a repository of the pretended hub has."""

CODE = "from transformers import {parent}\n\n\nclass Remote({parent}):\n    pass\n"


def save_biqwen_adapter(folder):
    base = save_qwen(folder / "base", "qwen2_5_vl")
    save_qwen(folder / "other-base", "qwen2_5_vl", seed=1)
    save_adapter(folder / "adapter", AutoModel.from_pretrained(base), base_model_name_or_path=str(base))
    return folder / "adapter"


def save_jina(folder):
    """A whole checkpoint whose files say that it is jina's."""
    return add_code(
        save_qwen(folder / "jina-embeddings-v4", "qwen2_5_vl"), "Qwen2_5_VLModel", "modeling_jina_embeddings_v4"
    )


def add_code(folder, parent, module="made"):
    """Let a checkpoint bring its own Python code: a class that is called otherwise and does the same."""
    (folder / f"{module}.py").write_text(CODE.format(parent=parent))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": f"{module}.Remote"}}))
    return folder


def save_text(folder, seed=0):
    torch.manual_seed(seed)
    return save_tiny(folder / "text-model", tiny_bert_config())


LATE_FOLDERS = {
    "ColPaliForRetrieval": "colpali-v1.3-hf",
    "ColQwen2ForRetrieval": "colqwen2-v1.0-hf",
    "ColModernVBertForRetrieval": "colmodernvbert-merged",
}
"""The folder of each late-interaction class, named as the checkpoint that its manifest is of."""

KINDS = {
    "text": save_text,
    "text-late": save_text,
    "text with code": lambda folder: add_code(save_text(folder), "BertModel"),
    "text-late with code": lambda folder: add_code(save_text(folder), "BertModel"),
    "qwen3_vl": lambda folder: save_qwen(folder / "Qwen3-VL-Embedding-2B", "qwen3_vl"),
    "qwen3_vl with code": lambda folder: add_code(save_qwen(folder / "tiny", "qwen3_vl"), "Qwen3VLModel"),
    "gme": lambda folder: save_qwen(folder / "gme-Qwen2-VL-2B-Instruct", "qwen2_vl"),
    "dse": lambda folder: save_qwen(folder / "tiny-dse", "qwen2_vl"),
    "biqwen2_5": lambda folder: save_qwen(folder / "nomic-embed-multimodal-3b", "qwen2_5_vl"),
    "eager": lambda folder: save_qwen(folder / "eager-embed-v1", "qwen3_vl"),
    "moca": lambda folder: save_qwen(folder / "MoCa-Qwen25VL-3B", "qwen2_5_vl"),
    "biqwen2_5 adapter": save_biqwen_adapter,
    "jina_v4": save_jina,
    "nemotron_vl": lambda folder: save_nemotron(folder / "llama-nemotron-embed-vl-1b-v2"),
    "modernvbert": lambda folder: save_modernvbert(folder / "bimodernvbert"),
    "clip": lambda folder: save_dual_encoder(folder / "tiny", "clip"),
    "siglip": lambda folder: save_dual_encoder(folder / "tiny", "siglip"),
    "siglip2": lambda folder: save_dual_encoder(folder / "tiny", "siglip2"),
    **{name: partial(lambda name, folder: save_late(folder / LATE_FOLDERS[name], name), name) for name in CLASSES},
}
"""Kind -> what saves a tiny checkpoint of it in a folder; most folders are named as a known checkpoint."""

AS_MTEB = {"qwen3_vl", "gme", "biqwen2_5", "eager", "jina_v4", "nemotron_vl", "modernvbert", "ColPaliForRetrieval"}
"""The kinds whose folder is named as a checkpoint with a manifest that says what mteb does otherwise."""

EMBEDDED = ("page-text", "page-text-bge", "page-vision", "page-text-late", "page-vision-late")
ON_A_HUB = {"text on a hub": "text", "ColPali on a hub": "ColPaliForRetrieval", "text-late on a hub": "text-late"}

VALUES = {
    "revision": SECOND,
    "base_model": "elsewhere",
    "pooling": "cls",
    "layer_pooling": "mean",
    "reader": "text-layer" if can_read_pictures() else "ocr",
    "kept_tokens": "all",
    "device": "cpu" if torch.cuda.is_available() else "cuda",
    "dtype": "bfloat16",
    "max_tokens": 20,
    "long_pages": "windows",
    "window_overlap": 4,
    "window_pooling": "windows",
    "protocol": "mteb",
    "max_pixels": 300 * 1024,
    "query_prompt": "Find: ",
    "page_prompt": "A page: ",
    "trust_remote_code": True,
    "model_family": "clip",
}
"""Another value than that of the plain options, for every field but the model."""

MEAN_POOLED = (
    "moca",
    "page-text",
    "page-vision",
    "text",
    "text with code",
    "text on a hub",
    "jina_v4",
    "nemotron_vl",
    "modernvbert",
)
"""The kinds whose plain options pool every layer as the mean over tokens."""

OTHER_FAMILY = {"gme": "dse", "dse": "gme", "biqwen2_5": "jina_v4", "clip": "siglip"}


def family_of(kind):
    """The name of the registry's entry that a kind belongs to."""
    return re.sub(" (with code|adapter|on a hub)$", "", ON_A_HUB.get(kind, kind))


@pytest.fixture(scope="module")
def plain_options(tmp_path_factory):
    """Return the options that load a kind with nothing overruled; checkpoints are made once, a hub is pretended."""
    folder, made, repositories = tmp_path_factory.mktemp("kinds"), {}, {}

    def snapshot_download(repository, revision=None, **_):
        return str(repositories[repository, revision or FIRST])

    def on_a_hub(kind):
        repository, saved = f"owner/{kind.split()[0]}", KINDS[ON_A_HUB[kind]](folder / kind)
        for commit in (FIRST, SECOND):
            repositories[repository, commit] = shutil.copytree(saved, folder / kind / "at" / commit)
        (folder / kind / "at" / SECOND / "vocab.txt").write_text("a file that the first commit does not have")
        return repository

    def make(kind):
        if kind not in made and kind not in EMBEDDED:
            made[kind] = on_a_hub(kind) if kind in ON_A_HUB else str(KINDS[kind](folder / kind))
        return LoadOptions(made.get(kind, kind), pooling="mean" if family_of(kind) == "text" else None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(folder / "modules"))
        patch.syspath_prepend(str(folder / "modules"))
        yield make


def white(page_id, longest_side):
    return Image.new("RGB", (longest_side, longest_side), "white")


def load(kind, options):
    late = is_late(options) or family_of(kind) == "text-late"
    return (load_late_backbone if late else load_backbone)(options, render=white, progress=False)


def other_value(kind, option, backbone):
    if option == "model_family":
        return OTHER_FAMILY.get(kind, "clip")
    if option == "base_model" and kind == "biqwen2_5 adapter":
        return str(Path(backbone.options.model).with_name("other-base"))
    if option == "page_prompt" and family_of(kind) in CLASSES:
        return f"A page: {backbone.processor.visual_prompt_prefix}"  # with the picture's token in it
    if option == "long_pages" and kind in EMBEDDED:
        return "truncate"
    if option == "pooling" and kind == "page-text-bge":  # which is cls already
        return "mean"
    return VALUES[option]


def honoured(kind):
    """The options that a kind honours here: those of its entry that its files allow."""
    entry = next(one for one in RETRIEVERS if one.name == family_of(kind))
    fit = {"revision": kind in ON_A_HUB, "base_model": "adapter" in kind, "trust_remote_code": "with code" in kind}
    fit["protocol"] = kind in AS_MTEB
    fit |= dict.fromkeys(("window_overlap", "window_pooling"), kind in EMBEDDED)  # a checkpoint cuts unless asked
    fit["layer_pooling"] = kind not in MEAN_POOLED
    return {option for option in entry.honours if fit.get(option, True)}


@pytest.fixture(scope="module", params=[*EMBEDDED, *KINDS, *ON_A_HUB])
def kind_and_backbone(request, plain_options):
    if request.param == "page-text-bge":
        request.getfixturevalue("bge_folder")
    return request.param, load(request.param, plain_options(request.param))


def test_the_options_are_kept(kind_and_backbone, plain_options):
    kind, backbone = kind_and_backbone
    assert backbone.options == plain_options(kind)


def test_the_stated_pooling_of_an_embedded_one_is_its_own(kind_and_backbone):
    kind, backbone = kind_and_backbone
    stated = {entry.name: entry.pooling for entry in RETRIEVERS}.get(kind)
    assert stated == (None if kind not in EMBEDDED or kind.endswith("-late") else backbone.pooling)


@pytest.mark.parametrize("option", sorted(OPTION_NAMES - {"model"}))
def test_an_option_changes_the_key_or_is_refused(kind_and_backbone, option, plain_options):
    kind, backbone = kind_and_backbone
    other = replace(plain_options(kind), **{option: other_value(kind, option, backbone)})
    assert other != plain_options(kind)
    try:
        changed = load(kind, other).key()
    except BackboneError as error:
        message = str(error)
        assert flag_of(option) in message and backbone.name in message
        without_effect = f"{flag_of(option)} {VALUES[option]}".removesuffix(" True")
        refused_as_unfit = option == "model_family" or (option == "device" and not torch.cuda.is_available())
        if option not in honoured(kind):
            assert message.startswith(f"{without_effect if option != 'model_family' else flag_of(option)} ")
            assert f"has no effect on {backbone.name}: " in message and "Leave it out" in message
        else:
            assert refused_as_unfit, message
        return
    assert option in honoured(kind), f"{option} is not declared"
    assert changed != backbone.key(), f"{option} has no effect on {kind} and is not refused"


@pytest.mark.parametrize("kind", ["page-text", "text", "text on a hub", "modernvbert"])
@pytest.mark.parametrize("pooling", ["cls", "last"])
def test_layer_pooling_counts_where_one_token_is_read(kind, pooling, plain_options):
    one_token = replace(plain_options(kind), pooling=pooling)
    means = load(kind, replace(one_token, layer_pooling="mean"))
    assert means.pooling == pooling and means.key() != load(kind, one_token).key()
    with pytest.raises(
        BackboneError, match="^--layer-pooling mean has no effect on .*: it pools every layer as the mean"
    ):
        load(kind, replace(plain_options(kind), pooling="mean", layer_pooling="mean"))


@pytest.mark.parametrize("kind", ["text", "text-late"])
@pytest.mark.parametrize("option", ["window_overlap", "window_pooling"])
def test_options_of_windows_count_where_there_are_windows(kind, option, plain_options):
    windows = replace(plain_options(kind), long_pages="windows")
    overruled = replace(windows, **{option: VALUES[option]})
    if kind == "text-late" and option == "window_pooling":
        with pytest.raises(BackboneError, match="it makes no vector out of several windows"):
            load(kind, overruled)
        return
    assert load(kind, overruled).key() != load(kind, windows).key()
    with pytest.raises(BackboneError, match=f"{flag_of(option)} .*--long-pages windows reads all of them"):
        load(kind, replace(overruled, long_pages="truncate"))


def test_another_model_has_another_key(kind_and_backbone):
    kind, backbone = kind_and_backbone
    other = "page-vision" if kind == "page-text" else "page-text"
    assert load_backbone(other).key() != backbone.key()


def test_every_kind_is_tried():
    assert {family_of(kind) for kind in (*EMBEDDED, *KINDS)} == {kind.name for kind in RETRIEVERS}
    assert set(VALUES) == OPTION_NAMES - {"model"}


def test_the_declared_options_are_fields():
    assert OPTION_NAMES == {field.name for field in fields(LoadOptions)}
    assert set(WHY_NOT) == OPTION_NAMES - EVERY
    for kind in RETRIEVERS:
        assert EVERY <= kind.honours <= OPTION_NAMES
    assert len({kind.name for kind in RETRIEVERS}) == len(RETRIEVERS)


@pytest.mark.parametrize(
    ("kind", "given", "flag"),
    [
        ("page-text-late", {"model_family": "nonsense"}, "--model-family nonsense"),
        ("page-text-late", {"revision": "nosuch"}, "--revision nosuch"),
        ("page-text-late", {"max_pixels": 5}, "--max-pixels 5"),
        ("page-text", {"max_pixels": 5}, "--max-pixels 5"),
        ("page-text", {"trust_remote_code": True}, "--trust-remote-code"),
    ],
)
def test_what_a_user_tried(kind, given, flag):
    with pytest.raises(BackboneError, match=f"^{flag} has no effect on {kind}: .*. Leave it out; {kind} honours --dev"):
        load(kind, LoadOptions(kind, **given))


def test_options_are_checked_before_weights_are_loaded(plain_options, tmp_path):
    whole = Path(plain_options("text").model)
    bare = Path(shutil.copytree(whole, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors")))
    for option in ("max_pixels", "revision", "kept_tokens", "base_model", "trust_remote_code"):
        with pytest.raises(BackboneError, match=f"{flag_of(option)}.* has no effect on bare"):
            load_backbone(LoadOptions(str(bare), pooling="mean", **{option: VALUES[option]}))


@pytest.mark.parametrize("kind", ON_A_HUB)
def test_options_are_checked_before_weights_are_fetched(kind, plain_options, monkeypatch):
    plain, fetched = plain_options(kind), []
    download = huggingface_hub.snapshot_download

    def note(repository, revision=None, **options):
        fetched.append(options["allow_patterns"])
        return download(repository, revision, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", note)
    with pytest.raises(BackboneError, match="--max-pixels 5 has no effect on "):
        load(kind, replace(plain, max_pixels=5))
    with pytest.raises(BackboneError, match="--layer-pooling mean has no effect on "):
        load(kind, replace(plain, layer_pooling="mean"))
    assert fetched and all(files == SETTINGS for files in fetched)
    load(kind, plain)
    assert "*.safetensors" in fetched[-1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": ""}, "model must name a retriever; got an empty name"),
        ({"pooling": "max"}, "pooling must be one of last, mean, cls; got 'max'"),
        ({"reader": "eyes"}, "reader must be one of text-layer, ocr, auto; got 'eyes'"),
        ({"kept_tokens": "some"}, "kept_tokens must be one of all, text; got 'some'"),
        ({"protocol": "ours"}, "protocol must be one of authors, mteb; got 'ours'"),
        ({"dtype": "int8"}, "dtype must be one of auto, float32, bfloat16; got 'int8'"),
        ({"device": "quantum"}, "device must be auto, cpu, cuda or cuda:N; got 'quantum'"),
        ({"device": "meta"}, "device must be auto, cpu, cuda or cuda:N; got 'meta'"),
        ({"max_tokens": 0}, "max_tokens must be at least 1; got 0"),
        ({"max_pixels": -1}, "max_pixels must be at least 1; got -1"),
    ],
)
def test_values_that_no_retriever_takes_are_refused_at_once(given, message):
    with pytest.raises(BackboneError, match=message):
        LoadOptions(**given)


def test_given_options_are_those_that_differ_from_their_defaults():
    assert LoadOptions().given() == {}
    assert LoadOptions("page-vision", max_tokens=7, reader=None).given() == {"model": "page-vision", "max_tokens": 7}


def test_without_rapidocr_the_reader_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr("miner_diag.backbones.registry.can_read_pictures", lambda: False)
    with pytest.raises(BackboneError, match=r"^--reader ocr has no effect on page-text: RapidOCR is not installed"):
        load_backbone(LoadOptions(reader="ocr"))
    with pytest.raises(BackboneError, match=r"^--reader ocr has no effect on page-vision: it looks at the page's pict"):
        load_backbone(LoadOptions("page-vision", reader="ocr"))


def test_is_late(plain_options):
    late = ["page-text-late", "page-vision-late", "vidore/colpali-v1.3-hf", plain_options("ColQwen2ForRetrieval").model]
    single = ["page-text", "Qwen/Qwen3-VL-Embedding-2B", plain_options("text").model, plain_options("siglip").model]
    assert all(is_late(model) and is_late(LoadOptions(model)) for model in late)
    assert not any(is_late(LoadOptions(model)) for model in single)
    assert is_late(plain_options("ColPali on a hub")) and not is_late(plain_options("text on a hub"))
    with pytest.raises(BackboneError, match=r"unknown model 'page-txt'; there is: page-text \("):
        is_late("page-txt")
