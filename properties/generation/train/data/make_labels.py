"""Ids and labels of conversations as OpenGVLab's `preprocess_internvl2_5` makes them: every turn is tokenized by itself; of an answer
its head and the line's end after it are not learned.

    python make_labels.py models/demo > labels.json
"""
import json
import sys

from transformers import AutoTokenizer

tok = AutoTokenizer.from_pretrained(sys.argv[1])
TURNS = [
    [("user", "Who are you?"), ("assistant", "I am a very small InternVL.")],
    [("system", "Be brief."), ("user", "What color is the background?"), ("assistant", "White."), ("user", "And now?"), ("assistant", "Gray, of course.\n\nYes. ")],
    [("user", "<image>\nWhat is at the top left?"), ("assistant", "A red star."), ("user", "<image>\n<image>\nWhich?"), ("assistant", " The second one.")],
]


def encode(text): return tok(text, add_special_tokens=False)["input_ids"]


rows = []
for turns in TURNS:
    ids, labels = [], []
    for role, text in turns:
        turn = encode(f"<|im_start|>{role}\n" + text.replace("<image>", "<img>" + "<IMG_CONTEXT>" * 16 + "</img>") + "<|im_end|>\n")
        ids += turn
        head = len(encode("<|im_start|>assistant\n"))
        labels += [-100] * head + turn[head:-1] + [-100] if role == "assistant" else [-100] * len(turn)
    rows.append({"turns": [{"from": "human" if r == "user" else "gpt" if r == "assistant" else r, "value": t} for r, t in turns], "ids": ids, "labels": labels})
print(json.dumps(rows))
