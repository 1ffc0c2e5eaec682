"""Tiny random checkpoints of the Col… classes, processor included, for the tests of late interaction."""

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast

CLASSES = ("ColPaliForRetrieval", "ColQwen2ForRetrieval", "ColModernVBertForRetrieval")

SPECIAL = [
    "<pad>",
    "<bos>",
    "<eos>",
    "<unk>",
    "<image>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<fake_token_around_image>",
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)),
]
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}


def tokenizer_of(pad):
    """Bytes of a text, one token each, so that no word is unknown."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=[token for token in SPECIAL if token not in ("<pad>", "<bos>", "<eos>", "<unk>")],
    )


def colpali(vocabulary):
    image_processor = transformers.SiglipImageProcessorPil(size={"height": 56, "width": 56})
    image_processor.image_seq_length = 16
    processor = transformers.ColPaliProcessor(image_processor, tokenizer_of("<pad>"))
    vocabulary = len(processor.tokenizer)  # the processor adds location tokens
    config = AutoConfig.for_model(
        "colpali",
        embedding_dim=16,
        vlm_config={
            "model_type": "paligemma",
            "image_token_index": SPECIAL.index("<image>"),
            "projection_dim": 32,
            "hidden_size": 32,
            "text_config": {
                "model_type": "gemma",
                "vocab_size": vocabulary,
                "num_key_value_heads": 1,
                "head_dim": 8,
                "max_position_embeddings": 512,
                **TEXT,
            },
            "vision_config": {"model_type": "siglip_vision_model", "projection_dim": 32, **VISION},
        },
    )
    return config, processor


def colqwen2(vocabulary):
    image_processor = transformers.Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112})
    processor = transformers.ColQwen2Processor(image_processor, tokenizer_of("<|endoftext|>"))
    text = {
        "vocab_size": vocabulary,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e6},
        **TEXT,
    }
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2}
    names = {"image": "<|image_pad|>", "vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    vlm = AutoConfig.for_model(
        "qwen2_vl",
        text_config=text,
        vision_config=vision,
        **{f"{name}_token_id": SPECIAL.index(token) for name, token in names.items()},
        video_token_id=3,
    )
    return AutoConfig.for_model("colqwen2", vlm_config=vlm.to_dict(), embedding_dim=16), processor


def colmodernvbert(vocabulary):
    image_processor = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}, do_image_splitting=True
    )
    # 56 / 14 = 4 patches a side, shuffled 2 x 2 into one token: 4 tokens a tile
    processor = transformers.ColModernVBertProcessor(image_processor, tokenizer_of("<pad>"), image_seq_len=4)
    text = {
        "model_type": "modernbert",
        "vocab_size": vocabulary,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "max_position_embeddings": 256,
        **TEXT,
    }
    vlm = {
        "model_type": "modernvbert",
        "image_token_id": SPECIAL.index("<image>"),
        "pixel_shuffle_factor": 2,
        "text_config": text,
        "vision_config": {"model_type": "siglip_vision_model", **VISION},
    }
    return AutoConfig.for_model("colmodernvbert", embedding_dim=16, vlm_config=vlm), processor


BUILDERS = dict(zip(CLASSES, (colpali, colqwen2, colmodernvbert), strict=True))


def save_late(folder, architecture):
    """Write a random checkpoint of a Col… class with its processor into `folder`."""
    config, processor = BUILDERS[architecture](len(SPECIAL) + 256)
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(config).eval()
    for parameter in model.parameters():  # spread out, so that two tokens' vectors are far apart
        torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
