"""Writes generated.json: the outputs of each step of Transformers' `generate`, greedy and with beams, for every decoder.

    python properties/reference/attentions/generated.py          (transformers 5.24.0, torch 2.15)

Weights are those of attentions.py: sines of the parameter's name. Kept of each tensor by token and layer: its shape, and its last query row.
"""
import json
from pathlib import Path
import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from weights import CONFIGS, fill, pack

V = 12
vision = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=[8, 8], patch_size=[2, 2])
rows, L = [[3, 4, 5, 6, 7], [8, 9, 2]], 5
ids = torch.tensor([[0] * (L - len(r)) + r for r in rows])
mask = torch.tensor([[0] * (L - len(r)) + [1] * len(r) for r in rows])
last = lambda steps, at: [[pack(at(layer)) for layer in step] for step in steps]
shapes = lambda steps: [[list(layer.shape) for layer in step] for step in steps]
decoders = {}
for name, text in CONFIGS.items():
    config = dict(model_type="internvl", image_token_id=11, image_seq_length=4, vision_config=vision, text_config=dict(text, vocab_size=V))
    given = {k: v for k, v in config.items() if k != "model_type"}
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model("internvl", **given), attn_implementation="eager", experts_implementation="eager").eval().float()
    fill(model, text)
    runs = {}
    for run, options in dict(greedy={}, beams=dict(num_beams=2, num_return_sequences=2, length_penalty=0.5), penalties=dict(num_beams=2, repetition_penalty=1.3, eos_token_id=[4, 6])).items():
        with torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, pad_token_id=1, **dict(dict(max_new_tokens=3, eos_token_id=None), **options), return_dict_in_generate=True,
                                 output_attentions=True, output_hidden_states=True, output_scores=True, output_logits=True)
        runs[run] = dict(options=options, tokens=out.sequences[:, L:].tolist(), shapes=shapes(out.attentions), stateShapes=shapes(out.hidden_states),
                         attentions=last(out.attentions, lambda a: a[:, :, -1]), states=last(out.hidden_states, lambda h: h[:, -1]),
                         scores=[pack(s.clamp(min=-1e9)) for s in out.scores], logits=[pack(s) for s in out.logits],
                         **(dict(beamIndices=out.beam_indices.tolist()) if "num_beams" in options else {}))
    decoders[name] = dict(config=config, runs=runs)
Path(__file__).with_suffix(".json").write_text(json.dumps(dict(prompts=rows, decoders=decoders), separators=(",", ":")) + "\n")
