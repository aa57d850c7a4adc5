"""Prints a small byte-level BPE with the splitting rules of GPT-OSS (`o200k_base` of tiktoken 0.14), and its ids of odd strings by `tokenizers`:
`python make_o200k.py > o200k.json`."""
import json
import random
import tiktoken_ext.openai_public as public
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

public.load_tiktoken_bpe = lambda *_, **__: {}
tok = Tokenizer(models.BPE(ignore_merges=True))
tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(public.o200k_base()["pat_str"]), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
tok.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
words = ["don't", "I'LL", "HTTPServer", "camelCase", "UPPER", "lower", "12345", "3.14", "a1b2", "日本語", "naïve", "e\u0301te\u0301", "😀", "\n\n", "\r\n", "\t", "  ", "   x", "/path/to", "(x)", "a\u00a0b", "ǅ", "ʰ", "…", "they're", "WE'VE", "x\n /y", "ß", "Ünder"]
rng = random.Random(4)
texts = ["".join(rng.choice(words) + rng.choice(["", " ", "  ", "\n"]) for _ in range(rng.randint(1, 6))) for _ in range(120)]
tok.train_from_iterator(texts * 3, trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
model = json.loads(tok.to_str())["model"]
tokens = [t for t, _ in sorted(model["vocab"].items(), key=lambda pair: pair[1])]
merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
print(json.dumps(dict(tokens=tokens, merges=merges, texts=[[t, tok.encode(t).ids] for t in texts]), ensure_ascii=False))
