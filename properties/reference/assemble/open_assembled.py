"""Checks that Transformers opens the folders that `internvl assemble` writes, with the logits of the parts, the same prompts and ids:

    python properties/reference/assemble/open_assembled.py properties/generation/assemble/parts

Writes prompts.json beside them: the prompts and ids of Transformers, with which a test compares those of this library.
"""
import json, subprocess, sys, tempfile
from pathlib import Path
import torch
from transformers import AutoProcessor, InternVLForConditionalGeneration

parts = Path(sys.argv[1]).resolve()
ROOT = Path(__file__).resolve().parents[3]
MESSAGES = [dict(role="user", content=[dict(type="image"), dict(type="text", text="How many shapes?")])]
failed, prompts = 0, {}
for decoder, case in json.loads((parts / "expected.json").read_text()).items():
    with tempfile.TemporaryDirectory() as work:
        out = f"{work}/out"
        subprocess.run(["node", "generation/bin.js", "assemble", "--vision", parts / case["tower"], "--decoder", parts / decoder, "--projector", parts / "internvl", "--dtype", "float32", "--out", out], cwd=ROOT, check=True)
        model, report = InternVLForConditionalGeneration.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
        problems = {name: list(keys) for name, keys in report.items() if keys}
        side, ids = case["side"], case["ids"]
        pixels = torch.sin(torch.arange(3 * side * side, dtype=torch.float64) * 0.37).float().reshape(1, 3, side, side)
        with torch.no_grad(): logits = model.eval()(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0, -1]
        expected = torch.tensor(case["logits"])
        difference = ((logits - expected).abs().max() / expected.abs().max()).item()
        processor = AutoProcessor.from_pretrained(out)
        prompt = processor.apply_chat_template(MESSAGES, add_generation_prompt=True)
        prompts[decoder] = dict(prompt=prompt, ids=processor.tokenizer(prompt)["input_ids"])
        ok = difference < 1e-4 and not problems and model.config.image_token_id == processor.image_token_id
        failed += not ok
        print(decoder, "equal" if ok else f"FAILED {problems}", f"{difference:.1e}")
(parts / "prompts.json").write_text(json.dumps(prompts) + "\n")
sys.exit(1 if failed else 0)
