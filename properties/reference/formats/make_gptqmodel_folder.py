"""Writes a small InternVL folder with GPTQModel, and the logits of Transformers with the weights that its own layers dequantize:

    GPTQMODEL_CPU_WORKERS=2 python make_gptqmodel_folder.py TOKENIZER OUT

TOKENIZER is as for `make_quantized_folders.py`. GPTQModel 7.7.0 runs on a CPU with Transformers 5.24 and torch 2.15; without
GPTQMODEL_CPU_WORKERS it fails on machines of two cores."""
import json
import shutil
import sys
from pathlib import Path
import torch
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from small_internvl import logits_of, small_internvl

tokenizer, out = Path(sys.argv[1]), Path(sys.argv[2])
folder, scratch = out / "gptqmodel", out / "scratch"
shutil.rmtree(folder, ignore_errors=True)
plain = small_internvl("qwen2", tokenizer, torch.float16)
plain.half().save_pretrained(scratch)
for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja"): shutil.copy(tokenizer / name, scratch)
settings = QuantizeConfig(bits=4, group_size=32, desc_act=True, sym=False, pack_impl="original", offload_to_disk=False, device="cpu")
model = GPTQModel.load(str(scratch), settings, dtype=torch.float16)
generator = torch.Generator().manual_seed(2)
examples = [dict(input_ids=torch.randint(0, 200, (1, 64), generator=generator), attention_mask=torch.ones(1, 64, dtype=torch.long)) for _ in range(16)]
model.prepare_dataset = lambda calibration_dataset, batch_size=1, **_: examples  # ids, not conversations
model.quantize(examples, batch_size=1, backend=BACKEND.TORCH)
model.save(str(folder))
shutil.rmtree(scratch)
opened = GPTQModel.load(str(folder), device="cpu", backend=BACKEND.TORCH, dtype=torch.float16)
modules, count = dict(plain.float().named_modules()), 0
for path, module in opened.model.named_modules():
    if hasattr(module, "dequantize_weight"):
        modules[path].weight.data.copy_(module.dequantize_weight().T.float()); count += 1
assert count == 7, count
ids, logits = logits_of(plain)
for file in folder.iterdir():
    if file.name not in ("config.json", "model.safetensors"): file.unlink()
(folder / "expected.json").write_text(json.dumps(dict(ids=ids, side=28, logits=logits)))
