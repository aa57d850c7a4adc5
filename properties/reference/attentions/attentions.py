"""Writes attentions.json: attention weights of Transformers' eager attention, in forwards of every decoder and in `generate` of the demo model.

    python properties/reference/attentions/attentions.py          (transformers 5.24, torch 2.15)

Weights and inputs are sines of the parameter's name, which `attentions.ts` computes too, so that the file holds results only.
"""
import json
from pathlib import Path
import torch
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText
from transformers.cache_utils import DynamicCache
from weights import CONFIGS, fill, pack, values, wave

root = Path(__file__).parents[3]
decoders = {}
for name, config in CONFIGS.items():
    given = {k: v for k, v in config.items() if k != "model_type"}
    model = AutoModel.from_config(AutoConfig.for_model(config["model_type"], **given), attn_implementation="eager", experts_implementation="eager").eval().float()
    fill(model, config)
    D, mask, cache = config["hidden_size"], torch.ones(2, 9, dtype=torch.long), DynamicCache()
    mask[1, :2] = 0
    embeds = wave("embeds", (2, 9, D))
    with torch.no_grad():
        first = model(inputs_embeds=embeds[:, :7], attention_mask=mask[:, :7], past_key_values=cache, use_cache=True, output_attentions=True)
        second = model(inputs_embeds=embeds[:, 7:], attention_mask=mask, past_key_values=cache, use_cache=True, output_attentions=True)
    decoders[name] = dict(config=config, first=[pack(a) for a in first.attentions], second=[pack(a) for a in second.attentions])

demo = AutoModelForImageTextToText.from_pretrained(root / "models/demo", dtype=torch.float32, attn_implementation="eager").eval()
image = [demo.config.image_token_id] * 16
pixels = wave("pixels", (1, 3, 112, 112))
rows = [[3, 4, *image, 50, 60, 70], [80, 90, 100, 110]]
L = max(map(len, rows))
ids = torch.tensor([[0] * (L - len(r)) + r for r in rows])
mask = torch.tensor([[0] * (L - len(r)) + [1] * len(r) for r in rows])
generated = []
for eos in ([], None):
    if eos is None: eos = [generated[0]["tokens"][0][0]]  # the first row ends at once
    with torch.no_grad():
        out = demo.generate(input_ids=ids, attention_mask=mask, pixel_values=pixels, max_new_tokens=3, do_sample=False, eos_token_id=eos or None, pad_token_id=1,
                            output_attentions=True, output_hidden_states=True, return_dict_in_generate=True)
    generated.append(dict(eos=eos, tokens=out.sequences[:, L:].tolist(), shapes=[[list(a.shape) for a in step] for step in out.attentions],
                          lastRows=[[pack(step[i][:, :, -1]) for i in (0, 3)] for step in out.attentions],
                          stateShapes=[[list(h.shape) for h in step] for step in out.hidden_states],
                          lastStates=[[pack(step[i][:, -1, :6]) for i in (0, 2, 4)] for step in out.hidden_states]))
with torch.no_grad(): vision = demo.model.vision_tower(pixel_values=pixels, output_attentions=True).attentions
Path(__file__).with_suffix(".json").write_text(json.dumps(dict(
    decoders=decoders, prompts=rows, generated=generated,
    vision=dict(shapes=[list(a.shape) for a in vision], rows=[pack(vision[i][:, :, :2]) for i in (0, 4)])), separators=(",", ":")) + "\n")
