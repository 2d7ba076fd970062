"""Tiny models with random weights, of each architecture, in the form of sentence-transformers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

TEXT = "how many layers does it take red blue a photo of the weather is nice today ?"
WORDS = TEXT.split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

#: Numbers of a vector, and layers, of every model here.
WIDTH, LAYERS = 32, 4


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: n for n, word in enumerate([*SPECIAL, *WORDS])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]", bos_token="[CLS]", eos_token="[SEP]",
        model_max_length=16,
    )  # fmt: skip


def config(kind: str) -> Any:
    """Return the configuration of a tiny encoder."""
    import transformers as tr

    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    common = {
        "vocab_size": 32, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "intermediate_size": 64, **ids,
    }  # fmt: skip
    grouped = {"num_key_value_heads": 2, "head_dim": 8}
    made = {
        "bert": lambda: tr.BertConfig(**common),
        "xlm-r": lambda: tr.XLMRobertaConfig(**common),
        "mpnet": lambda: tr.MPNetConfig(**common),
        "modernbert": lambda: tr.ModernBertConfig(**common, cls_token_id=2, sep_token_id=3),
        "nomic": lambda: tr.NomicBertConfig(**common),
        "qwen3": lambda: tr.Qwen3Config(**common, **grouped),
        "gte": lambda: tr.GteConfig(**common),
        "gemma3": lambda: tr.Gemma3TextConfig(**common, **grouped),
        "distilbert": lambda: tr.DistilBertConfig(
            vocab_size=32, dim=WIDTH, n_layers=LAYERS, n_heads=4, hidden_dim=64, pad_token_id=0
        ),
        # One set of weights for all layers; two stacks; layers in blocks of different length.
        "albert": lambda: tr.AlbertConfig(**common, embedding_size=16),
        "bart": lambda: tr.BartConfig(
            vocab_size=32, d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS,
            encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
            decoder_ffn_dim=64, **ids,
        ),
    }  # fmt: skip
    return made[kind]()


def build(kind: str, directory: Path) -> Path:
    """Save a tiny model of texts and return its directory."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoModel

    torch.manual_seed(0)
    inner = directory / "transformer"
    AutoModel.from_config(config(kind)).save_pretrained(inner)
    tokenizer().save_pretrained(inner)
    model = SentenceTransformer(
        modules=[Transformer(str(inner)), Pooling(WIDTH, "mean")], device="cpu"
    )
    model.save_pretrained(str(directory / "model"), create_model_card=False)
    return directory / "model"


def build_clip(directory: Path) -> Path:
    """Save a tiny model of texts and images and return its directory."""
    import torch
    import transformers as tr
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(0)
    side = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 64}  # fmt: skip
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    settings = tr.CLIPConfig(
        text_config={**side, **ids, "vocab_size": 32, "max_position_embeddings": 16},
        vision_config={**side, "image_size": 16, "patch_size": 8},
        projection_dim=16,
    )
    inner = directory / "clip"
    tr.CLIPModel(settings).save_pretrained(inner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = tr.CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        )
    tr.CLIPProcessor(image_processor=images, tokenizer=tokenizer()).save_pretrained(inner)
    SentenceTransformer(str(inner), device="cpu").save_pretrained(
        str(directory / "model"), create_model_card=False
    )
    return directory / "model"
