"""Writes tokenizer/: a small vocabulary in CLIP's layout, and what transformers' CLIPTokenizer makes of prompts.

    pip install transformers==5.* && python tests/golden/make_tokenizer_golden.py

Vocabulary and merges are made here from the text below; the files around them look as those of Stable Diffusion v1.5.
"""

import collections
import itertools
import json
import pathlib

import transformers

FOLDER = pathlib.Path(__file__).with_name("tokenizer")
MERGES = 220
TEXT = (
    "a photo of the photo of a cat dog tench goldfish great white shark tiger hammerhead electric ray "
    "stingray cock hen ostrich brambling house finch junco indigo bunting robin bulbul jay magpie "
    "chickadee kite bald eagle vulture grey owl golden retriever french horn cassette player chain saw "
    "church garbage truck gas pump golf ball parachute english springer it's they're we'll i'm don't "
    "photo a of"
)

PROMPTS = [
    "",
    " ",
    "a photo of a tench",
    "a photo of a golden retriever",
    "A Photo Of A GOLDEN Retriever",
    "  a   photo\tof\n a\u00a0great \u3000white shark  ",
    "a photo of a tench.",
    "a photo of a cat, a dog; and (maybe) an owl!?",
    "it's a dog's life, they're cats, we'll see, I'm sure, I'd say, you've won, don't",
    "IT'S A DOG'S LIFE",
    "'s't're've'm'll'd",
    "'S 'tis ''s",
    "it\u2019s a photo",
    "12 photos of 3.14 cats in 2024, 1st 2nd",
    "\u00bd \u00b2 \u2163 \u0663",
    "caf\u00e9 na\u00efve \u00dcber \u00c5ngstr\u00f6m",
    "cafe\u0301 A\u030angstro\u0308m",
    "\u0130stanbul \u1e9eharp STRA\u00dfE \u03a3\u0391\u03a3",
    "\u4e00\u5f20\u732b\u7684\u7167\u7247",
    "\u732b\u306e\u5199\u771f a cat \uace0\uc591\uc774",
    "\u0444\u043e\u0442\u043e \u041a\u041e\u0422\u0410",
    "a \U0001f408 and a \U0001f469\u200d\U0001f680 \U0001f1e9\U0001f1ea",
    "cat\u200bdog cat\u00addog cat\ufeffdog",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0645\u0631\u062d\u0628\u0627",
    "\ufb01sh \ufb03 \uff26\uff35\uff2c\uff2c",
    "snake_case kebab-case CamelCase path/to/file a+b=c #tag @user 50% $5 \u20ac5",
    "a\u0000b\u0007c\u001cd\u001fe\u0085f\u2028g\u180eh",
    "a photo of a <|endoftext|> cat",
    "<|startoftext|>a cat<|endoftext|>",
    "<|STARTOFTEXT|> a <|EndOfText|>",
    "<|startoftext a|> | <| |>",
    '!!!??? ... --- ___ "quoted" `code` {x} [y]',
    "the the the",
    "thethethe",
    "great white " * 60,
    "x" * 200,
    "tench " * 75,
    "tench " * 74 + "owl",
    "\U0001f408" * 30,
]


def byte_symbols() -> dict[int, str]:
    """The printable stand-in of every byte (GPT-2's table): itself where it prints, else a character from 256 up."""
    prints = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    hidden = [byte for byte in range(256) if byte not in prints]
    return {byte: chr(byte) for byte in prints} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def make_merges(symbols: dict[int, str]) -> list[tuple[str, str]]:
    """Byte-pair encoding of TEXT: the most frequent pair first, of equals the first in order."""
    words = collections.Counter(TEXT.split())
    split = {word: [symbols[b] for b in word.encode()] for word in words}
    split = {word: [*parts[:-1], parts[-1] + "</w>"] for word, parts in split.items()}
    merges = []
    for _ in range(MERGES):
        pairs = collections.Counter()
        for word, parts in split.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, parts in split.items():
            joined, i = [], 0
            while i < len(parts):
                if tuple(parts[i : i + 2]) == best:
                    joined.append("".join(best))
                    i += 2
                else:
                    joined.append(parts[i])
                    i += 1
            split[word] = joined
    return merges


def main() -> None:
    """Writes every file of the folder."""
    symbols = byte_symbols()
    merges = make_merges(symbols)
    # CLIP's order: printable bytes, hidden bytes, both again at a word's end, merges, the two special tokens.
    tokens = list(symbols.values())
    tokens += [symbol + "</w>" for symbol in tokens]
    tokens += ["".join(pair) for pair in merges] + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    assert len(vocab) == len(tokens)

    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {
        "bos_token": {"content": "<|startoftext|>", **flags},
        "eos_token": {"content": "<|endoftext|>", **flags},
        "pad_token": "<|endoftext|>",
        "unk_token": {"content": "<|endoftext|>", **flags},
    }
    config = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77}
    config |= {"pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer"}
    for key in ("bos_token", "eos_token", "unk_token"):
        config[key] = {"__type": "AddedToken", **special[key]}

    FOLDER.mkdir(exist_ok=True)

    def write(name: str, text: str) -> None:
        (FOLDER / name).write_text(text, encoding="utf-8")

    write("vocab.json", json.dumps(vocab, ensure_ascii=False))
    write("merges.txt", "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    write("special_tokens_map.json", json.dumps(special))
    write("tokenizer_config.json", json.dumps(config))

    tokenizer = transformers.CLIPTokenizer.from_pretrained(FOLDER)
    ids = [tokenizer(p, padding="max_length", truncation=True, max_length=77).input_ids for p in PROMPTS]
    cases = [{"prompt": prompt, "ids": row} for prompt, row in zip(PROMPTS, ids, strict=True)]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    write("prompts.json", f"[\n{lines}\n]\n")
    print(f"transformers {transformers.__version__}: {len(vocab)} tokens, {len(cases)} prompts")


if __name__ == "__main__":
    main()
