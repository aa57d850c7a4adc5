"""Trains four small SentencePiece models and writes the ids of 2,000 odd texts: `python make_sentencepiece.py FOLDER TEXTFILE…`
(sentencepiece 0.2, transformers 5.24). FOLDER gets `NAME/tokenizer.model`, tokenizer_config.json and added_tokens.json of each model, and
`ids.json`: for each model and text four digits of a hash of the ids by `sentencepiece` (the text is plain) and by Transformers' slow tokenizer
(added tokens in the text are tokens). The texts are made by the generator below, which sentencepiece.test.ts has too."""
import json
import sys
from pathlib import Path
import sentencepiece as spm
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

FRAGMENTS = [
    "the image", "Hello", " ", "  ", "    ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "a", "aa", "aaa", "aaaaaaa", "InternVL", "tokens", "model(", "=>", "```", "1234567890", "3.14",
    "Ünï", "cafe\u0301", "é", "ﬁ", "①", "½", "Ａ", "ß", "İ", "Привет", "мир!", "你好", "这是一张图片", "これは", "ガ", "か\u3099", "한국", "ⵣ", "🙂", "👩‍👩‍👧", "🇫🇷", "\u200b", "\ufeff", "▁", "▁▁", "<s>",
    "</s>", "<unk>", "<sep", "<img>", "<IMG_CONTEXT>", "<|im_end|>", "<0x41>", "<", ">", "\\", "\"", "'s", "ing", "er ", " of", "\u0301", "\ufffd", "\u0001", "x" * 40, "ab" * 12, "。", "…", "--", "(a)", "{}", "%$#",
]


def texts(count):
    state = 12345
    def draw(n):
        nonlocal state
        state = state * 16807 % 2147483647
        return state % n
    return ["".join(FRAGMENTS[draw(len(FRAGMENTS))] for _ in range(1 + draw(9))) for _ in range(count)]


def digest(ids):
    value = 2166136261
    for i in ids:
        value = ((value ^ i) * 403) % 4294967291
    return f"{value % 65536:04x}"


out, files = Path(sys.argv[1]), sys.argv[2:]
out.mkdir(parents=True, exist_ok=True)
corpus = [line for f in files for line in Path(f).read_text().split("\n") if line.strip()]
corpus += ["Der schnelle braune Fuchs springt über den faulen Hund.", "你好,世界!这是一张图片。", "これは画像です。", "Привет, мир! 한국"] * 3
common = dict(sentence_iterator=None, num_threads=1, max_sentence_length=100000, minloglevel=2)
rules = out / "rules.tsv"
rule = lambda a, b: " ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b)
rules.write_text("\n".join(rule(a, b) for a, b in [("ﬁ", "fi"), ("①", "1"), ("½", "1/2"), ("Ａ", "A"), ("\u3000", " "), ("\u00a0", " "), ("\t", " "), ("e\u0301", "é"), ("か\u3099", "が"), ("\u200b", ""), ("\ufeff", ""), ("İ", "i\u0307"), ("…", "...")]) + "\n")
MODELS = {
    "bpe": dict(model_type="bpe", vocab_size=640, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, character_coverage=0.995),
    "unigram": dict(model_type="unigram", vocab_size=640, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False, character_coverage=0.995),
    "bpe-rules": dict(model_type="bpe", vocab_size=300, normalization_rule_tsv=str(rules), character_coverage=0.98, user_defined_symbols=["<sep>"], hard_vocab_limit=False),
    "unigram-rules": dict(model_type="unigram", vocab_size=300, normalization_rule_tsv=str(rules), character_coverage=0.98, user_defined_symbols=["<sep>"], hard_vocab_limit=False),
}
result = {}
for name, options in MODELS.items():
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    spm.SentencePieceTrainer.train(model_prefix=str(folder / "tokenizer"), **{**common, "sentence_iterator": iter(corpus)}, **options)
    (folder / "tokenizer.vocab").unlink()
    sp = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    n = sp.get_piece_size()
    added = {"<img>": n, "<IMG_CONTEXT>": n + 1, "<|im_end|>": n + 2}
    decoder = {str(i): dict(content=c, lstrip=False, normalized=False, rstrip=False, single_word=False, special=True) for i, c in [(0, "<unk>"), (1, "<s>"), (2, "</s>"), *((i, c) for c, i in added.items())]}
    listed = dict(added_tokens_decoder=decoder) if name in ("bpe", "unigram-rules") else {}  # else added_tokens.json has them
    (folder / "added_tokens.json").write_text(json.dumps(added, indent=1))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class="InternLM2Tokenizer", bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>", additional_special_tokens=["<img>", "<IMG_CONTEXT>"], **listed), indent=1))
    slow = SentencePieceBackend.from_pretrained(str(folder), vocab_file=str(folder / "tokenizer.model"), bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    plain, split = [], []
    for text in texts(2000):
        plain.append(digest(sp.encode(text)))
        split.append(digest(slow.convert_tokens_to_ids(slow.tokenize(text))))
    result[name] = dict(plain="".join(plain), split="".join(split), sample=[[t, sp.encode(t), slow.convert_tokens_to_ids(slow.tokenize(t)), sp.decode(sp.encode(t))] for t in texts(12)])
rules.unlink()
(out / "ids.json").write_text(json.dumps(result, ensure_ascii=True).replace('"}, "', '"},\n"'))
