"""Writes a small InternVL folder whose decoder AutoAWQ quantized, and the logits of Transformers with the weights that AutoAWQ dequantizes:

    python make_autoawq_folder.py TOKENIZER OUT

TOKENIZER is as for `make_quantized_folders.py`. AutoAWQ 0.2.9 runs on a CPU with Transformers 5.24 and torch 2.15, without its search for
clipped weights. The decoder stands in a folder of OpenGVLab's layout, where `lmdeploy lite auto_awq`, which quantized OpenGVLab's own AWQ
folders, writes it: `quantization_config` is a part of `llm_config`, and only the decoder's layers are quantized."""
import hashlib
import json
import shutil
import sys
from pathlib import Path
import torch
from awq import AutoAWQForCausalLM
from awq.utils.packing_utils import dequantize_gemm
from safetensors.torch import load_file, save_file
from small_internvl import logits_of, opengvlab_config, opengvlab_tensors, small_internvl
from transformers import Qwen2ForCausalLM

tokenizer, out, group = sys.argv[1], Path(sys.argv[2]), 32
folder, scratch = out / "autoawq", out / "scratch"
shutil.rmtree(folder, ignore_errors=True); folder.mkdir(parents=True)
plain = small_internvl("qwen2", tokenizer, torch.float16)
decoder = Qwen2ForCausalLM(plain.config.text_config)
decoder.model.load_state_dict(plain.model.language_model.state_dict()); decoder.lm_head.load_state_dict(plain.lm_head.state_dict())
decoder.half().save_pretrained(scratch / "plain")
model = AutoAWQForCausalLM.from_pretrained(str(scratch / "plain"), device_map="cpu")
generator = torch.Generator().manual_seed(2)
examples = [torch.randint(0, 200, (64,), generator=generator).tolist() for _ in range(16)]
model.quantize(None, quant_config=dict(zero_point=True, q_group_size=group, w_bit=4, version="GEMM"), calib_data=examples, max_calib_seq_len=64, apply_clip=False)
model.save_quantized(str(scratch / "awq"))

stored, config = load_file(scratch / "awq/model.safetensors"), json.loads((scratch / "awq/config.json").read_text())
shutil.rmtree(scratch)
vision = {k: v.half() for k, v in opengvlab_tensors(plain).items() if not k.startswith("language_model.")}
save_file({k: v.contiguous() for k, v in vision.items()} | {f"language_model.{k}": v for k, v in stored.items()}, folder / "model.safetensors", metadata={"format": "pt"})
(folder / "config.json").write_text(json.dumps(opengvlab_config(config), indent=1))
weights, digests = {}, {}
for key, x in stored.items():
    path, _, kind = key.rpartition(".")
    if kind == "qweight":
        weight = dequantize_gemm(x, stored[f"{path}.qzeros"], stored[f"{path}.scales"], 4, group).T.contiguous()  # float16
        digests[f"language_model.{path}.weight"] = hashlib.sha256(weight.numpy().tobytes()).hexdigest()
        weights[f"{path}.weight"] = weight
    elif kind not in ("qzeros", "scales"): weights[key] = x
assert len(digests) == 7, digests.keys()
plain.load_state_dict({k.replace("model.", "model.language_model.", 1): v.float() for k, v in weights.items()} | {k: v for k, v in plain.state_dict().items() if not k.startswith(("model.language_model.", "lm_head."))})
ids, logits = logits_of(plain)
(folder / "expected.json").write_text(json.dumps(dict(ids=ids, side=28, logits=logits, sha256=digests)))
