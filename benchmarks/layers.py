"""What fewer layers save: the first half of an encoder's layers beside all of them, in one run.

    python benchmarks/layers.py [--kinds bert modernbert] [--layers 12] [--texts 64] [--rounds 5]

The encoders have random weights (their time does not depend on them) in the shape of a small real
one: 384 wide, 12 layers, 30,000 words. Both variants take turns on the same texts; what is told is
the ratio of their median times, and of the bytes of their weights.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers

from nestvec.embedders.sentence_transformers import SentenceTransformerEmbedder

WIDTH, VOCABULARY, WORDS = 384, 30_000, 120


def config(kind: str, layers: int) -> Any:
    shape = {
        "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": layers,
        "num_attention_heads": 12, "intermediate_size": 4 * WIDTH, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    made = {
        "bert": transformers.BertConfig,
        "xlm-r": transformers.XLMRobertaConfig,
        "modernbert": transformers.ModernBertConfig,
        "nomic": transformers.NomicBertConfig,
    }
    extra = {"cls_token_id": 1, "sep_token_id": 2} if kind == "modernbert" else {}
    return made[kind](**shape, **extra)


def build(kind: str, layers: int, directory: Path) -> Path:
    torch.manual_seed(0)
    inner = directory / "transformer"
    transformers.AutoModel.from_config(config(kind, layers)).save_pretrained(inner)
    words = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3}
    words |= {f"w{n}": n for n in range(4, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=256,
    ).save_pretrained(inner)  # fmt: skip
    model = SentenceTransformer(modules=[Transformer(str(inner)), Pooling(WIDTH, "mean")])
    model.save_pretrained(str(directory / "model"), create_model_card=False)
    return directory / "model"


def nbytes(embedder: SentenceTransformerEmbedder) -> int:
    return sum(p.numel() * p.element_size() for p in embedder._load().parameters())  # noqa: SLF001


def measure(kind: str, layers: int, texts: list[str], rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        place = build(kind, layers, Path(directory))
        whole = SentenceTransformerEmbedder(place, device="cpu")
        half = whole.with_layers(layers // 2)
        seconds: dict[str, list[float]] = {"whole": [], "half": []}
        for n in range(rounds + 1):
            for name, embedder in (("whole", whole), ("half", half)):
                started = time.perf_counter()
                embedder.embed_documents(texts)
                if n:  # the first is warming up
                    seconds[name].append(time.perf_counter() - started)
        times = {name: statistics.median(took) for name, took in seconds.items()}
        return {
            "kind": kind,
            "layers": [layers, layers // 2],
            "texts_per_second": {name: round(len(texts) / took, 1) for name, took in times.items()},
            "time_ratio": round(times["half"] / times["whole"], 3),
            "weights_ratio": round(nbytes(half) / nbytes(whole), 3),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", default=["bert", "modernbert"])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    dice = random.Random(0)
    texts = [
        " ".join(f"w{dice.randrange(4, VOCABULARY)}" for _ in range(WORDS))
        for _ in range(asked.texts)
    ]
    for kind in asked.kinds:
        print(json.dumps(measure(kind, asked.layers, texts, asked.rounds)), flush=True)


if __name__ == "__main__":
    main()
