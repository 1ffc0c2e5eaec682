"""Layers with planted properties, stores made of arrays, and small documents and checkpoints for the command."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy.stats import ortho_group

from tests.corpus.files import PdfPage, Text, pdf_bytes

N_PAGES, N_QUERIES, D = 80, 96, 16
NAMES = ("constant", "noise", "rotated", "rotated_apart", "copy", "loud", "final")


def plant():
    """Make queries [Q, L, D] and pages [P, L, D] whose last layer retrieves, and inner layers of which all is known.

    constant: one vector for all. noise: nothing. rotated: the final layer, both sides turned alike. rotated_apart: the
    final layer, queries and pages turned differently, so CKA is as before and cosines between them are worthless.
    copy: the final layer, scaled and blurred. loud: the final layer with rows of wildly different length, so cosines
    are as before and CKA hangs on a handful of rows. The last 16 queries ask for pages that others ask for too.
    """
    rng = np.random.default_rng(5)
    answer = np.concatenate([np.arange(64), np.arange(16), np.arange(16)])
    meaning = rng.normal(size=(N_PAGES, D))
    page = meaning + 0.5 * rng.normal(size=meaning.shape)
    query = meaning[answer] + 0.5 * rng.normal(size=(N_QUERIES, D))
    turn, other_turn = (ortho_group.rvs(D, random_state=rng) for _ in range(2))
    one = rng.normal(size=D)

    def layers(final, turn_apart):
        n = len(final)
        return {
            "constant": np.tile(one, (n, 1)),
            "noise": rng.normal(size=(n, D)),
            "rotated": final @ turn,
            "rotated_apart": final @ turn_apart,
            "copy": 7 * (final + 0.3 * rng.normal(size=(n, D))),
            "loud": final * np.exp(3 * rng.normal(size=(n, 1))),
            "final": final,
        }

    queries, pages = (
        np.stack([by_name[name] for name in NAMES], axis=1).astype(np.float32)
        for by_name in (layers(query, turn), layers(page, other_turn))
    )
    return SimpleNamespace(
        queries=queries,
        pages=pages,
        gold=[{int(row): 1} for row in answer],
        answer=answer,
        names=NAMES,
        layer={name: number for number, name in enumerate(NAMES)},
        ids={
            "query_ids": [f"q{row:03}" for row in range(N_QUERIES)],
            "page_ids": [f"p{row:03}" for row in range(N_PAGES)],
            "page_hashes": [f"hash{row}" for row in range(N_PAGES)],
        },
    )


class CountedStore:
    """Rows of an array, read as those of an embedding store are; what was read is counted."""

    def __init__(self, vectors, ids=None):
        self.vectors, self.shape, self.ids = vectors, vectors.shape, ids
        self.rows_read, self.most_rows, self.layers_read = 0, 0, []

    @property
    def layer_embeddings(self):
        raise AssertionError("all layers of all items were asked for at once")

    def rows(self, rows):
        self.rows_read += len(rows)
        self.most_rows = max(self.most_rows, len(rows))
        return self.vectors[rows]

    def layer(self, layer):
        self.layers_read.append(layer)
        return self.vectors[:, layer]


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


def write_handbooks(folder: Path, sizes=(5,) * 7) -> Path:
    """Write handbooks with so many pages, each page with a title in the outline, and one broken file."""
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
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 and nothing else")
    return folder
