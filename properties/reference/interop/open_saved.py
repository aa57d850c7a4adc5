"""Checks that Hugging Face Transformers opens checkpoints that this library saves and converts, with equal results.

    python3 -m venv .venv && .venv/bin/pip install torch torchvision transformers pillow
    .venv/bin/python properties/reference/interop/open_saved.py CASE...

A CASE is a folder with reference values (checkpoint/, optionally checkpoint-original/, one-image.json, one-image.safetensors). Its
checkpoint is saved, converted to every layout of Transformers, and to OpenGVLab's layout and back. Transformers opens every result;
logits and prompts must equal those of the case's folder. float32 weights and copies must be equal bit for bit.
"""
import argparse, json, subprocess, sys, tempfile
from pathlib import Path
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, InternVLForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
ROOT = Path(__file__).resolve().parents[3]


def internvl(*arguments):
    subprocess.run(["node", "generation/bin.js", *map(str, arguments)], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)


def save(source, target, dtype):
    script = ROOT / "properties" / "reference" / "interop" / "save-folder.ts"
    subprocess.run(["npx", "tsx", str(script), str(source), str(target), dtype], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)


def folders(case, work):
    """Every folder derived from the case's checkpoint, with the name of the operation."""
    source = case / "checkpoint"
    dtype = json.loads((source / "config.json").read_text()).get("dtype", "float32")
    save(source, work / "saved", dtype)
    yield "saved", work / "saved"
    internvl("convert", source, work / "hf", "--layout", "hf", "--shard-size", "100KB")
    yield "converted to hf", work / "hf"
    internvl("convert", work / "hf", work / "first", "--layout", "hf-first")
    yield "converted to hf-first", work / "first"
    try:
        internvl("convert", source, work / "original", "--layout", "original")
    except subprocess.CalledProcessError:
        print(f"{case.name}: the original layout cannot represent this model")
    else:
        internvl("convert", work / "original", work / "back", "--layout", "hf")
        yield "converted to original and back", work / "back"
    if (case / "checkpoint-original").exists():
        internvl("convert", case / "checkpoint-original", work / "published", "--layout", "hf")
        yield "converted from checkpoint-original", work / "published"


def outputs(folder, case):
    """Logits of the input with one image, and the prompt with its ids."""
    model, report = InternVLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {name: list(keys) for name, keys in report.items() if keys}
    assert not problems, f"{folder}: {problems}"
    processor = AutoProcessor.from_pretrained(folder)
    stored, tensors = json.loads((case / "one-image.json").read_text()), load_file(case / "one-image.safetensors")
    prompts = [processor.apply_chat_template(messages, add_generation_prompt=True) for messages in stored["messages"]]
    with torch.no_grad():
        inputs = {name: tensors[name].long() for name in ("input_ids", "attention_mask")}
        logits = model.eval()(**inputs, pixel_values=tensors["pixel_values"]).logits
    ids = processor.tokenizer(prompts)["input_ids"]
    sizes = [processor.image_processor.size, processor.image_seq_length, model.config.image_token_id]
    return logits, prompts, ids, [str(size) for size in sizes]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+", type=Path)
    failed = 0
    for case in parser.parse_args().cases:
        logits, *texts = outputs(case / "checkpoint", case)
        with tempfile.TemporaryDirectory() as work:
            for name, folder in folders(case.resolve(), Path(work)):
                actual, *others = outputs(folder, case)
                difference = (actual - logits).abs().max().item()
                equal = difference == 0 and others == texts
                failed += not equal
                print(f"{case.name}: {name}: {'opens, equal logits, prompts and ids' if equal else f'FAILED, logits differ by {difference:.1e}'}")
                if others != texts:
                    print(*(f"  {a}\n  {b}" for a, b in zip(texts, others) if a != b), sep="\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
