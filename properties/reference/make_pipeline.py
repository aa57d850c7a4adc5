"""Prints results of Transformers' image-text-to-text pipeline on the demo checkpoint, as JSON:
`python make_pipeline.py CHECKPOINT IMAGES > pipeline.json` (transformers 5.24, float32). Images are given by file name."""
import json
import os
import sys
import torch
from transformers import pipeline

pipe = pipeline("image-text-to-text", model=sys.argv[1], dtype=torch.float32)
IMAGES = sys.argv[2]


def chat(question, image="shapes.png"):
    return [{"role": "user", "content": [{"type": "image", "path": image}, {"type": "text", "text": question}]}]


def prompt(question):
    return f"<|im_start|>user\n<IMG_CONTEXT>\n{question}<|im_end|>\n<|im_start|>assistant\n"


DESCRIBE, COUNT = chat("Describe the image."), chat("How many circles are there?", "circle.png")
PREFIX = DESCRIBE + [{"role": "assistant", "content": [{"type": "text", "text": "There is a"}]}]
CONVERSATION = DESCRIBE + [{"role": "assistant", "content": "One."}, {"role": "user", "content": "What is at the top right?"}]
NEW = {"return_full_text": False}
CALLS = [
    (DESCRIBE, {}), (DESCRIBE, NEW), ([DESCRIBE, COUNT], NEW), ([DESCRIBE, PREFIX, COUNT], {}), (CONVERSATION, NEW), (PREFIX, {}), (PREFIX, NEW),
    (PREFIX, {"continue_final_message": False, **NEW}), (DESCRIBE, {"stop_sequence": "bottom", **NEW}),
    (DESCRIBE, {"stop_sequence": ["star at", "bottom"]}), (COUNT, {"return_tensors": True}), (DESCRIBE, {"max_new_tokens": 3, **NEW}),
    (COUNT, {"skip_special_tokens": False, **NEW}), (DESCRIBE, {"generate_kwargs": {"num_beams": 2, "num_return_sequences": 2}}),
    ([DESCRIBE, COUNT], {"generate_kwargs": {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 2.0}, **NEW}),
    (prompt("Describe the image.").replace("<IMG_CONTEXT>\n", ""), {}), ([prompt("Who are you?").replace("<IMG_CONTEXT>\n", "")] * 2, NEW),
    ({"images": "circle.png", "text": prompt("How many circles are there?")}, {}),
    ({"images": ["circle.png", "shapes.png"], "text": [prompt("How many circles are there?"), prompt("Describe the image.")]}, NEW),
    ({"images": ["circle.png", "shapes.png"], "text": [prompt("How many circles are there?"), prompt("Describe the image.")]}, {"return_tensors": True}),
]


def placed(value):
    if isinstance(value, str):
        return os.path.join(IMAGES, value) if value.endswith(".png") else value
    if isinstance(value, list):
        return [placed(v) for v in value]
    return {k: placed(v) for k, v in value.items()} if isinstance(value, dict) else value


def plain(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, str):
        return value.replace(IMAGES.rstrip("/") + "/", "")
    return plain(value.messages) if hasattr(value, "messages") else value


def answer(given, options):
    try:
        known = isinstance(given, dict) and "images" in given
        return pipe(**placed(given), **json.loads(json.dumps(options))) if known else pipe(text=placed(given), **json.loads(json.dumps(options)))
    except (ValueError, KeyError) as error:
        return type(error).__name__


json.dump([{"input": g, "options": o, "output": plain(answer(g, o))} for g, o in CALLS], sys.stdout, indent=None, separators=(",", ":"))
print()
