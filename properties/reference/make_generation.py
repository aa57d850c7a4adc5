"""Prints tokens that Transformers generates on the demo checkpoint with many options, as JSON: `python make_generation.py CHECKPOINT > generation.json`
(transformers 5.24, float32). Prompts are token ids without images, padded on the left; finished rows are padded on the right."""
import json
import sys
import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer

torch.manual_seed(3)
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
tok = AutoTokenizer.from_pretrained(sys.argv[1])
pad = model.generation_config.pad_token_id
TEXTS = [["What is in the picture?", "How many red circles are there, and where is the blue square?"], ["Is it a"], ["Name the color", "1 2 3", "a red square and"]]
OPTIONS = [
    dict(num_beams=3),
    dict(num_beams=3, early_stopping=True, num_return_sequences=3),
    dict(num_beams=4, early_stopping="never", length_penalty=2.0, num_return_sequences=2),
    dict(num_beams=2, early_stopping="never", length_penalty=-1.0),
    dict(num_beams=3, length_penalty=0.0, num_return_sequences=2),
    dict(num_beams=5, length_penalty=-2.0, early_stopping=False, num_return_sequences=5),
    dict(num_beams=3, repetition_penalty=1.5, no_repeat_ngram_size=2),
    dict(num_beams=2, min_new_tokens=5, bad_words_ids="common"),
    dict(num_beams=2, eos_token_id="many", num_return_sequences=2),
    dict(num_beams=3, eos_token_id="many", length_penalty=0.3, early_stopping="never"),
    dict(eos_token_id="many"),
    dict(repetition_penalty=0.7),
    dict(repetition_penalty=2.0, no_repeat_ngram_size=3),
    dict(no_repeat_ngram_size=1),
    dict(bad_words_ids="common"),
    dict(suppress_tokens="common", begin_suppress_tokens="begin"),
    dict(forced_eos_token_id="eos"),
    dict(forced_bos_token_id=7, min_length=20),
    dict(min_new_tokens=8),
    dict(sequence_bias="bias"),
    dict(exponential_decay_length_penalty=[1, 1.8]),
    dict(exponential_decay_length_penalty=[3, 1.3], num_beams=3),
    dict(encoder_repetition_penalty=1.7),
    dict(encoder_repetition_penalty=0.4, num_beams=2),
    dict(encoder_no_repeat_ngram_size=1),
    dict(encoder_no_repeat_ngram_size=2, encoder_repetition_penalty=2.5),
]
cases = []
for texts in TEXTS:
    x = tok(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    n = x["input_ids"].shape[1]
    free = model.generate(**x, max_new_tokens=10, do_sample=False, eos_token_id=[])[:, n:]
    common = sorted(set(free.flatten().tolist()))
    named = {"many": common[::3] + [model.generation_config.eos_token_id], "common": [[t] for t in common[1::3]] + [free[0, :2].tolist()],
             "begin": free[:, 0].tolist(), "eos": model.generation_config.eos_token_id,
             "bias": [[[common[0]], 1.5], [free[0, :2].tolist(), -6.0], [free[-1, 1:4].tolist(), -7.5]]}
    for option in OPTIONS:
        o = {k: named.get(v, v) if isinstance(v, str) else v for k, v in option.items()}
        if "suppress_tokens" in o: o["suppress_tokens"] = [t for t, in o["suppress_tokens"][:-1]]
        o["max_new_tokens"] = 9
        out = model.generate(**x, do_sample=False, return_dict_in_generate=True, output_scores=True, **o)
        scores = getattr(out, "sequences_scores", None)
        cases.append(dict(ids=x["input_ids"].tolist(), mask=x["attention_mask"].tolist(), options=o, tokens=out.sequences[:, n:].tolist(),
                          scores=None if scores is None else [round(s, 5) for s in scores.tolist()]))
print(json.dumps(dict(eos=model.generation_config.eos_token_id, pad=pad, cases=cases)).replace('}, {"ids"', '},\n{"ids"'))
