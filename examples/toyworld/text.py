"""The tokenizer and the text encoder of the toy pipeline: CLIP's, small.

    python text.py         # writes weights/toyworld/tokenizer

The vocabulary is CLIP's 512 letters, merges under which every word of the grammar is one token, and the two marks of begin and end.
"""

import argparse
import json

import torch
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import world
from training import WEIGHTS

LENGTH = 16
FOLDER = WEIGHTS / "toyworld"


def words():
    return sorted({word for scene in world.scenes() for word in scene.caption().split()})


def vocabulary():
    """CLIP's files: token -> id, and the merges, each word's from left to right."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = {}
    spelled = {word: (*word[:-1], word[-1] + "</w>") for word in words()}
    while any(len(parts) > 1 for parts in spelled.values()):
        counts = {}
        for parts in spelled.values():
            for pair in zip(parts, parts[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        best = max(sorted(counts), key=counts.get)
        merges[best] = len(merges)
        for word, parts in spelled.items():
            out, i = [], 0
            while i < len(parts):
                pair = parts[i : i + 2] == best
                out.append("".join(best) if pair else parts[i])
                i += 2 if pair else 1
            spelled[word] = tuple(out)
    vocab = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(vocab)}, [" ".join(pair) for pair in merges]


def write_tokenizer():
    folder = FOLDER / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, separators=(",", ":")) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    end = "<|endoftext|>"
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "bos_token": "<|startoftext|>", "eos_token": end, "pad_token": end, "unk_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def tokenizer():
    return CLIPTokenizer.from_pretrained(FOLDER / "tokenizer")


def tokens(captions):
    """[B, LENGTH], padding included."""
    return tokenizer()(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids


def new_encoder():
    vocab, _ = vocabulary()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocab), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=LENGTH,
            bos_token_id=len(vocab) - 2, eos_token_id=len(vocab) - 1, pad_token_id=len(vocab) - 1,
        )
    )


def load_encoder():
    return CLIPTextModel.from_pretrained(FOLDER / "text_encoder").float().eval()


def encode(encoder, ids):
    return encoder(input_ids=ids).last_hidden_state


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write_tokenizer()
    everything = [scene.caption() for scene in world.scenes()]
    ids = tokens(everything)
    end = len(vocabulary()[0]) - 1
    for word in words():
        assert len(tokenizer()(word).input_ids) == 3, word
    print(f"tokenizer: {end + 1} tokens, {len(words())} words of one token each; the longest caption has {int((ids != end).sum(1).max()) + 1} of {LENGTH}")


if __name__ == "__main__":
    main()
