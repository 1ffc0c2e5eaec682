"""A folder of small documents, and small retrievers with random weights that know all of their words."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.corpus.files import PdfPage, Text, pdf_bytes

WORDS = (
    "anchor basin canal delta estuary fjord glacier harbour island jetty kelp lagoon marina narrows ocean pier quay "
    "reef strait tide upwell vessel wharf yacht zephyr beacon current dredge ebb ferry gauge haven inlet keel level "
    "mooring nautic oyster plume ripple salt trench under vortex wave"
).split()
"""All words of the handbooks, and of the small retrievers' tokenizer."""


def save_retriever(folder: Path, n_blocks: int = 3) -> Path:
    """Save a small BERT with random weights, and a tokenizer of `WORDS`, as a user would save them."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoModel, BertConfig, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=n_blocks,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=48,
        initializer_range=0.2,
    )
    AutoModel.from_config(config).eval().save_pretrained(folder)
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[SEP]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=48,
    ).save_pretrained(folder)
    return folder


def write_handbooks(folder: Path, sizes=(5,) * 20) -> Path:
    """Write handbooks with so many pages; each has a title in the outline and three lines of the title's topic."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(11)
    for number, n_pages in enumerate(sizes):
        pages, outline = [], []
        for page in range(n_pages):
            topic = rng.permutation(WORDS)[:9]
            title = " ".join(topic[:4])
            lines = [" ".join(rng.permutation(topic)) for _ in range(3)]
            texts = [Text(title, y=760, size=18)]
            texts += [Text(line, y=700 - 40 * row) for row, line in enumerate(lines)]
            pages.append(PdfPage(tuple(texts)))
            outline.append((title, page))
        (folder / f"handbook-{number}.pdf").write_bytes(pdf_bytes(pages, outline))
    return folder
