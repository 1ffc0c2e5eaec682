"""Tiny random checkpoints of the real classes of every page-picture family: tokenizer, image processor, weights."""

import json

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

from miner_diag.corpus.core import Page, Query

QWEN_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SENTENCE = "Represent the user's input. Describe the image: which figure or table of results is on this page? "


def bytes_tokenizer(special, **options):
    """Byte-level BPE, as the large checkpoints have it, trained on one sentence."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [SENTENCE * 4],
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=special[1:], **options)


def shake(model, seed=0):
    """Give every weight a size that matters: library initialisation leaves biases and norms trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.05 * noise)
    return model.eval()


def qwen_config(kind, ids, vocabulary, **text_changes):
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    text = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "rope_parameters": rope,
        **text_changes,
    }
    vision = {
        "qwen2_vl": {
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 4,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        "qwen2_5_vl": {
            "depth": 4,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "out_hidden_size": 64,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 56,
            "fullatt_block_indexes": [1, 3],
        },
        "qwen3_vl": {
            "depth": 4,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "out_hidden_size": 64,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1, 2],
        },
    }[kind]
    if kind == "qwen3_vl":
        text["head_dim"] = 16
        rope["mrope_interleaved"] = True
    return AutoConfig.for_model(
        kind,
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )


def save_qwen(folder, kind, *, chat=True, seed=0, **text_changes):
    """Save a whole tiny Qwen-VL checkpoint as hubs have it: model with head, tokenizer, image processor."""
    tokenizer = bytes_tokenizer(QWEN_TOKENS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    if chat:
        tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in QWEN_TOKENS}
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(qwen_config(kind, ids, len(tokenizer), **text_changes))
    shake(model, seed).save_pretrained(folder)
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 16 if kind == "qwen3_vl" else 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.4, 0.5, 0.6],
        "min_pixels": 3136,
        "max_pixels": 50176,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


SIZES = [(120, 160), (333, 97), (64, 64), (50, 211), (160, 120), (17, 19), (400, 300), (101, 150)]
"""Widths and heights of pages: odd ones, narrow ones, small ones, several in a batch."""


class Drawn:
    """Draws pages of random colours, deterministically; counts what it draws."""

    def __init__(self):
        self.count = 0

    def __call__(self, page_id, longest_side):
        self.count += 1
        number = int(page_id.removeprefix("p"))
        width, height = SIZES[number % len(SIZES)]
        pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        scale = longest_side / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


QUERIES = [
    Query(f"q{number}", text, "given", "d")
    for number, text in enumerate(
        ["table of results", "", "which figure", "a <|image_pad|> in words", "é – ß", "x" * 300, " ", "page"]
    )
]
PAGES = [Page(f"p{number}", "d", number + 1, "", f"hash{number}") for number in range(len(SIZES))]


def save_adapter(
    folder, model, seed=1, *, part=None, prefix="base_model.model.", only=("q_proj", "down_proj"), **changes
):
    """Save a random low-rank adapter as peft names it; return what it adds to each module's weight."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    settings = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 6,
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "base_model_name_or_path": "Qwen/Qwen2.5-VL-3B-Instruct",
        **changes,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    infix = "" if part is None else f".{part}"
    tensors, added = {}, {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith(only) and "visual" not in name:
            low = 0.1 * torch.randn(4, module.in_features, generator=generator)
            high = 0.1 * torch.randn(module.out_features, 4, generator=generator)
            theirs = name.replace("language_model.", "model.")  # as older versions of the library called it
            tensors[f"{prefix}{theirs}.lora_A{infix}.weight"] = low
            tensors[f"{prefix}{theirs}.lora_B{infix}.weight"] = high
            added[name] = 6 / 4 * high @ low
    save_file(tensors, folder / "adapter_model.safetensors")
    return added


def save_modernvbert(folder, *, longest=64, tile=32):
    """Save a tiny ModernVBERT with its masked-language head, as its checkpoints are."""
    from tokenizers import processors
    from transformers import ModernVBertForMaskedLM

    special = ["[PAD]", "[CLS]", "[SEP]", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    special += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = bytes_tokenizer(special, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    cls, sep = (tokenizer.convert_tokens_to_ids(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    tokenizer.save_pretrained(folder)
    text = {
        "model_type": "modernbert",
        "vocab_size": len(tokenizer),
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "pad_token_id": 0,
        "bos_token_id": cls,
        "eos_token_id": sep,
        "cls_token_id": cls,
        "sep_token_id": sep,
        "local_attention": 16,
        "global_attn_every_n_layers": 3,
        "max_position_embeddings": 2048,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": tile,
        "patch_size": 4,
    }
    config = AutoConfig.for_model(
        "modernvbert",
        text_config=text,
        vision_config=vision,
        pixel_shuffle_factor=4,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    shake(ModernVBertForMaskedLM(config)).save_pretrained(folder)
    settings = {
        "image_processor_type": "Idefics3ImageProcessor",
        "size": {"longest_edge": longest},
        "max_image_size": {"longest_edge": tile},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "do_image_splitting": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def save_nemotron(folder, *, tile=32):
    """Save a tiny SigLIP and Llama under the names and settings of llama-nemotron-embed-vl."""
    from safetensors.torch import load_file, save_file
    from tokenizers import processors

    from miner_diag.backbones.nemotron_vl import NemotronVLConfig, NemotronVLModel

    special = ["<|end_of_text|>", "<|begin_of_text|>", "<img>", "</img>", "<IMG_CONTEXT>"]
    tokenizer = bytes_tokenizer(special, pad_token="<|end_of_text|>", bos_token="<|begin_of_text|>")
    bos = tokenizer.convert_tokens_to_ids("<|begin_of_text|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)]
    )
    tokenizer.save_pretrained(folder)
    config = NemotronVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": tile,
            "patch_size": 4,
        },
        llm_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
        },
        force_image_size=tile,
        img_context_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )
    torch.manual_seed(0)
    shake(NemotronVLModel(config)).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace("vision_model.", "vision_model.vision_model.", 1): value for name, value in weights.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    content = json.loads((folder / "config.json").read_text())
    content["auto_map"] = {"AutoModel": "modeling_llama_nemotron_vl.LlamaNemotronVLModel"}
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "processor_config.json").write_text(json.dumps({"max_input_tiles": 4, "use_thumbnail": True}))
    return folder


QUERY_ENCODER = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
PAGE_ENCODER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}


def closing_tokenizer(*, opens):
    """Byte-level BPE that puts an end token behind a text, and a start token before it if it `opens`."""
    from tokenizers import processors

    tokenizer = bytes_tokenizer(
        ["<|endoftext|>", "<|startoftext|>"],
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        bos_token="<|startoftext|>",
        model_max_length=24,
    )
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in ("<|startoftext|>", "<|endoftext|>")}
    start = "<|startoftext|> " if opens else ""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start}$A <|endoftext|>", special_tokens=list(ids.items())
    )
    return tokenizer


def gemma_tokenizer():
    """SigLIP 2's own class, with single characters and bytes for a vocabulary."""
    from tokenizers import processors
    from transformers import Siglip2Tokenizer

    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyz.,?"]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Siglip2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[],
        model_max_length=24,
        padding_side="right",
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    return tokenizer


def save_dual_encoder(folder, kind):
    """Save a tiny CLIP, SigLIP or SigLIP 2 whose two encoders differ in depth and width."""
    tokenizer = gemma_tokenizer() if kind == "siglip2" else closing_tokenizer(opens=kind == "clip")
    tokenizer.save_pretrained(folder)
    ends = tokenizer.eos_token_id
    text = {**QUERY_ENCODER, "vocab_size": len(tokenizer), "max_position_embeddings": 24, "eos_token_id": ends}
    vision = {**PAGE_ENCODER, "patch_size": 8}
    if kind == "siglip2":
        vision |= {"num_patches": 16}
    else:
        vision |= {"image_size": 32}
    if kind == "clip":
        config = AutoConfig.for_model(kind, text_config=text, vision_config=vision, projection_dim=40)
    else:
        config = AutoConfig.for_model(kind, text_config={**text, "projection_size": 32}, vision_config=vision)
    torch.manual_seed(0)
    from transformers import AutoModel

    shake(AutoModel.from_config(config)).save_pretrained(folder)
    settings = {
        "clip": {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 32},
            "crop_size": {"height": 32, "width": 32},
            "do_center_crop": True,
            "do_resize": True,
        },
        "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}},
        "siglip2": {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 20},
    }[kind]
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
