"""Prints results of Transformers' classes on the demo checkpoint, as JSON:
`python make_nouns.py CHECKPOINT IMAGES > nouns.json` (transformers 5.24, float32)."""
import json
import os
import sys
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained(sys.argv[1])
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], dtype=torch.float32).eval()


def ask(question, *names):
    images = [{"type": "image", "path": os.path.join(sys.argv[2], name)} for name in names]
    return [{"role": "user", "content": [*images, {"type": "text", "text": question}]}]


batch = [ask("Describe the image.", "shapes.png"), ask("Which picture has more shapes?", "squares.png", "shapes.png"), ask("Who are you?")]
inputs = processor.apply_chat_template(batch, padding=True, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
# predictions at padding tokens are not compared
mask = inputs["attention_mask"]
labels = torch.where((mask == 1) & (mask.roll(1, 1) == 1), inputs["input_ids"], -100)
with torch.no_grad():
    ids = model.generate(**inputs, max_new_tokens=25)
    out = model(**inputs, labels=labels, output_hidden_states=True)
    hidden = model.model(**inputs).last_hidden_state
    vision = model.model.vision_tower(inputs["pixel_values"]).last_hidden_state
    features = model.get_image_features(inputs["pixel_values"]).pooler_output
json.dump({
    "prompt": processor.apply_chat_template(batch[0]),
    "prompts": processor.apply_chat_template(batch, add_generation_prompt=True),
    "input_ids": processor.apply_chat_template(batch[0], tokenize=True)[0],
    "generated": ids.tolist(),
    "decoded": processor.batch_decode(ids, skip_special_tokens=True),
    "answer": processor.decode(ids[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True),
    "whole": processor.decode(ids[2]),
    "loss": out.loss.item(),
    "logits": out.logits[0, -1].tolist(),
    "hidden_states": [state[0, -1, :8].tolist() for state in out.hidden_states],
    "last_hidden_state": hidden[1, -1].tolist(),
    "vision": vision[0, 1, :].tolist(),
    "features": features[1, -1, :].tolist(),
    "parameters": model.num_parameters(),
}, sys.stdout, separators=(",", ":"))
print()
