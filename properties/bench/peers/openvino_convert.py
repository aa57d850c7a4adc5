"""Converts a checkpoint folder (Transformers layout, Qwen2 decoder) to OpenVINO: vision tower (float32, int8 weights) and decoder (int8, int4).

    pip install openvino nncf "optimum-intel[openvino]"
    python openvino_convert.py --checkpoint DIR --out OUT

optimum-intel has no export of the whole model in Transformers' layout, so both halves are converted by themselves.
"""
import argparse, os, shutil, subprocess, sys

os.environ["HF_HUB_OFFLINE"] = "1"
import nncf
import openvino as ov
import torch
from transformers import AutoModelForImageTextToText, Qwen2ForCausalLM

a = argparse.ArgumentParser()
a.add_argument("--checkpoint", required=True)
a.add_argument("--out", required=True)
args = a.parse_args()
os.makedirs(args.out, exist_ok=True)
model = AutoModelForImageTextToText.from_pretrained(args.checkpoint, dtype=torch.float32).eval()
decoder = Qwen2ForCausalLM(model.config.text_config)
decoder.model.load_state_dict(model.model.language_model.state_dict())
if not model.config.text_config.tie_word_embeddings and hasattr(model, "lm_head"):
    decoder.lm_head.load_state_dict(model.lm_head.state_dict())
decoder.tie_weights()
decoder.to(torch.bfloat16).save_pretrained(f"{args.out}/decoder")
for file in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copy(f"{args.checkpoint}/{file}", f"{args.out}/decoder/{file}")


class Tower(torch.nn.Module):
    """The vision tower alone: `[T, C, H, W]` to its last hidden state."""

    def __init__(self):
        super().__init__()
        self.tower = model.model.vision_tower

    def forward(self, x):
        return self.tower(pixel_values=x).last_hidden_state


with torch.no_grad():
    tower = ov.convert_model(Tower(), example_input=torch.randn(1, 3, *model.config.vision_config.image_size))
ov.save_model(tower, f"{args.out}/vision-f32.xml", compress_to_fp16=False)
ov.save_model(nncf.compress_weights(tower, mode=nncf.CompressWeightsMode.INT8_SYM), f"{args.out}/vision-int8.xml")
cli = os.path.join(os.path.dirname(sys.executable), "optimum-cli")
for bits in ("int8", "int4"):
    export = [cli, "export", "openvino", "-m", f"{args.out}/decoder", "--task", "text-generation-with-past"]
    subprocess.run([*export, "--weight-format", bits, f"{args.out}/decoder-{bits}"], check=True, stdout=sys.stderr)
shutil.rmtree(f"{args.out}/decoder")
