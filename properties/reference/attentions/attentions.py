"""Writes attentions.json: attention weights of Transformers' eager attention, in forwards of every decoder and in `generate` of the demo model.

    python properties/reference/attentions/attentions.py          (transformers 5.23.0, torch 2.15)

Weights and inputs are sines of the parameter's name, which `attentions.ts` computes too, so that the file holds results only.
"""
import json
import math
from pathlib import Path
import torch
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText
from transformers.cache_utils import DynamicCache

root = Path(__file__).parents[3]
values = lambda t: [float(f"{x:.6g}") for x in t.detach().reshape(-1).tolist()]
pack = lambda t: dict(shape=list(t.shape), values=values(t))


def wave(name, shape):
    h = 7
    for c in name: h = (h * 31 + ord(c)) % 65521
    base = 1.0 if "norm" in name else 0.0
    return torch.tensor([base + 0.4 * math.sin(h + 1.7 * j) for j in range(math.prod(shape))], dtype=torch.float64).float().reshape(shape)


def fill(model, config):
    for name, p in model.named_parameters():
        path = name
        if config["model_type"] == "qwen3_moe" and ".experts." in name:  # one module an expert, as in the published files
            start = name[: name.index(".experts.") + 8]
            E, I, D = config["num_experts"], config["moe_intermediate_size"], config["hidden_size"]
            one = lambda e, n, s: wave(f"{start}.{e}.{n}.weight", s)
            if name.endswith("gate_up_proj"): p.data = torch.stack([torch.cat([one(e, "gate_proj", (I, D)), one(e, "up_proj", (I, D))]) for e in range(E)])
            else: p.data = torch.stack([one(e, "down_proj", (D, I)) for e in range(E)])
        else: p.data = wave(path, tuple(p.shape))


common = dict(vocab_size=5, hidden_size=8, intermediate_size=6, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=4,
              max_position_embeddings=64, pad_token_id=None, bos_token_id=None, eos_token_id=None)
experts = dict(num_experts=4, num_experts_per_tok=2)
CONFIGS = dict(
    qwen2=dict(common, hidden_size=16, model_type="qwen2"),
    qwen2_sliding=dict(common, hidden_size=16, model_type="qwen2", use_sliding_window=True, sliding_window=3, max_window_layers=1),
    qwen3=dict(common, model_type="qwen3"),
    qwen3_moe=dict(common, model_type="qwen3_moe", moe_intermediate_size=4, decoder_sparse_step=2, mlp_only_layers=[], norm_topk_prob=True, **experts),
    llama=dict(common, model_type="llama", num_key_value_heads=1),
    phi3={k: v for k, v in dict(common, hidden_size=16, model_type="phi3", sliding_window=4).items() if k != "head_dim"},
    gpt_oss=dict(common, model_type="gpt_oss", sliding_window=3, num_local_experts=4, num_experts_per_tok=2, rope_parameters=dict(rope_type="default", rope_theta=10000.0)),
)
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
