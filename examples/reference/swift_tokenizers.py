"""Makes the tokenizers' vectors of `examples/swift`: small tokenizers of every kind that video models have, and what the library `tokenizers` makes of texts.

    python3 -m venv venv && venv/bin/pip install tokenizers==0.23.3 sentencepiece==0.2.2
    venv/bin/python examples/reference/swift_tokenizers.py            # writes examples/swift/Tests/S2DiTHostTests/Vectors/tokenizers.json
    venv/bin/python examples/reference/swift_tokenizers.py --check    # checks that the file is what this makes; writes nothing

The file is a list: each tokenizer with its `name`, the text of its `tokenizer.json`, and `cases` of a text and its `ids`, the ids of at most 12 tokens (`cut`) too.
"""

import argparse
import io
import json
import sys
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

OUT = Path(__file__).resolve().parents[1] / "swift/Tests/S2DiTHostTests/Vectors/tokenizers.json"
WORDS = "a cat walks through the snow and looks at camera two dogs play with red ball on beach it's café naïve 12 34 猫 собака".split()
TEXTS = [
    "",
    " ",
    "a cat",
    "A CAT walks\tthrough  the SNOW.\n",
    "it's the dog's ball, isn't it? they're, I'LL",
    "e\u0301 and é; Å and Å; ﬁ ½ ＷＩＤＥ",
    "👩‍👩‍👧‍👦 🇩🇪 猫が雪を歩く собака",
    "</s> <pad><unk> x<|endoftext|>y <extra_id_0>  z <mask>a bmask",
    "1234567890 3.14 a_b c-d \\i",
    "zero\u200bwidth \u00a0nbsp \u3000wide \u0085next \u000bline",
    "\r\n ΑΣΣ İstanbul ß ǅ",
    "▁under ▁▁ score▁",
    "a cat walks through the snow and looks at the camera " * 3,
    "xyz" * 40,
]


def merges(words, count):
    """The most frequent pairs, first come first."""
    words, made = [tuple(word) if isinstance(word, str) else word for word in words], []
    while len(made) < count:
        pairs = {}
        for parts in words:
            for pair in zip(parts, parts[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        if not pairs:
            break
        best = max(sorted(pairs), key=pairs.get)
        made.append(best)
        merged = []
        for parts in words:
            out, i = [], 0
            while i < len(parts):
                pair = parts[i : i + 2] == best
                out.append("".join(best) if pair else parts[i])
                i += 2 if pair else 1
            merged.append(tuple(out))
        words = merged
    return made


def clip():
    """CLIP's: bytes as letters, the end of a word as a suffix."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = [tuple(word[0] for word in [pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(w)[0]])[0] for w in WORDS]
    pairs = merges([(*word[:-1], word[-1] + "</w>") for word in letters], 60)
    tokens = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(pair) for pair in pairs] + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    made = Tokenizer(models.BPE(vocab, pairs, unk_token="<|endoftext|>", continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.post_processor = processors.RobertaProcessing(("<|endoftext|>", vocab["<|endoftext|>"]), ("<|startoftext|>", vocab["<|startoftext|>"]), False, False)
    made.add_special_tokens([AddedToken("<|startoftext|>", normalized=True), AddedToken("<|endoftext|>")])
    return made


def pieces(extra=()):
    """A vocabulary of pieces with scores, T5's special tokens first."""
    made = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *extra]
    for i, word in enumerate(WORDS):
        made.append(("▁" + word, -3.0 - i / 8))
        made += [(word[:n], -5.0 - i / 8 - n / 16) for n in range(2, len(word))]
    made += [(letter, -9.0 - i / 32) for i, letter in enumerate("▁abcdefghiklnoprstuvwxyz0123456789.,'猫")]
    # Equal to eyes, and different pieces.
    made += [("é", -7.0), ("e\u0301", -6.5), ("u\u0308", -6.0), ("ü", -6.25)]
    return list(dict(reversed(made)).items())[::-1]


def charsmap():
    """A small table of sentencepiece: wide letters, ligatures, a grapheme of two scalars, what vanishes."""
    rules = [("ﬁ", "fi"), ("½", "1/2"), ("\u3000", " "), ("\u200b", ""), ("e\u0301", "é"), ("\u00a0", " "), ("\u0085", " ")]
    rules += [(chr(0xFEE0 + ord(letter)), letter) for letter in "WIDE"]
    path = Path("/tmp/swift_tokenizers_rules.tsv")
    path.write_text("".join("\t".join(" ".join(f"{ord(c):X}" for c in side) for side in rule) + "\n" for rule in rules))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 4), model_writer=model, vocab_size=60, hard_vocab_limit=False, normalization_rule_tsv=str(path), minloglevel=2
    )
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    return proto.normalizer_spec.precompiled_charsmap


def t5(charsmap):
    """T5's and UMT5's."""
    made = Tokenizer(models.Unigram(pieces(), unk_id=2, byte_fallback=False))
    collapse = normalizers.Replace(Regex(" {2,}"), " ")
    made.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Strip(left=False, right=True), collapse])
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made.add_special_tokens(["<pad>", "</s>", "<unk>", AddedToken("<extra_id_0>", lstrip=True, rstrip=True)])
    made.add_tokens([AddedToken("mask", single_word=True, normalized=False), AddedToken("SNOW", normalized=True)])
    return made


def t5_older():
    """T5's as older files have it: Metaspace alone, which prepends to the first word only; unknown letters as bytes."""
    made = Tokenizer(models.Unigram(pieces([(f"<0x{byte:02X}>", -20.0) for byte in range(256)]), unk_id=2, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    made.normalizer = normalizers.NFKC()
    made.post_processor = processors.TemplateProcessing(single="<pad> $A </s>", special_tokens=[("</s>", 1), ("<pad>", 0)])
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return made


def gemma():
    """Gemma's: pairs over letters, spaces as ▁, bytes of what is unknown."""
    words = ["▁" + word for word in WORDS]
    pairs = merges(words, 60)
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{byte:02X}>" for byte in range(256)] + sorted(set("".join(words))) + ["".join(pair) for pair in pairs]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    made = Tokenizer(models.BPE(vocab, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    made.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>"])
    return made


def vector(name, tokenizer):
    cases = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        tokenizer.enable_truncation(12)
        cases.append({"text": text, "ids": ids, "cut": tokenizer.encode(text).ids})
        tokenizer.no_truncation()
    written = json.loads(tokenizer.to_str())
    # The order of a vocabulary's entries is that of a hash table; `to_str` sorts them.
    return {"name": name, "tokenizer": json.dumps(written, ensure_ascii=False), "cases": cases}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--charsmap", type=Path, help="a table of characters to check with instead of the small one; writes to --out")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    table = args.charsmap.read_bytes() if args.charsmap else charsmap()
    made = [vector("clip", clip()), vector("t5", t5(table)), vector("t5_older", t5_older()), vector("gemma", gemma())]
    text = "[\n" + ",\n".join(json.dumps(each, ensure_ascii=False) for each in made) + "\n]\n"
    if not args.check:
        args.out.write_text(text)
        print(f"{args.out}: {len(text.encode())} bytes")
    elif not args.out.is_file() or args.out.read_text() != text:
        sys.exit(f"{args.out} is not what this makes: run it without --check")


if __name__ == "__main__":
    main()
