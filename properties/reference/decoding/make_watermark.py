"""Writes watermark.json: watermarks, their detector, guidance and token healing, as Transformers computes them.

    python properties/reference/decoding/make_watermark.py          (transformers 5.24, torch 2.15)
"""
import json, math
from pathlib import Path
from types import SimpleNamespace
import torch
from transformers import AutoTokenizer, InternVLForConditionalGeneration, SynthIDTextWatermarkingConfig, WatermarkDetector, WatermarkingConfig

root = Path(__file__).resolve().parents[3]
V = 61
camel = lambda fields: {"".join(part.title() if i else part for i, part in enumerate(key.split("_"))): value for key, value in fields.items()}
scores = lambda step: torch.tensor([[3 * math.sin(0.9 * i + 0.7 * step) for i in range(V)]])
rounded = lambda tensor: [float(f"{x:.6g}") for x in tensor.flatten().tolist()]
ids = [5, 60, 5, 33, 12, 7, 7, 41, 5, 60]

green = []
for fields in ({}, {"bias": 3.5, "greenlist_ratio": 0.5}, {"seeding_scheme": "selfhash"}, {"seeding_scheme": "selfhash", "context_width": 4, "hashing_key": 97, "greenlist_ratio": 0.4}, {"context_width": 3, "hashing_key": 999999999989}):
    config = WatermarkingConfig(**fields)
    processor = config.construct_processor(V, "cpu")
    outputs = [rounded(processor(torch.tensor([ids[:n]]), scores(n))) for n in range(4, len(ids))]
    detections = []
    for repeated in (False, True):
        detector = WatermarkDetector(SimpleNamespace(vocab_size=V, bos_token_id=5, is_encoder_decoder=False), "cpu", config, ignore_repeated_ngrams=repeated)
        found = detector(torch.tensor([ids * 3]), return_dict=True)
        detections.append({"ignoreRepeatedNgrams": repeated, "numTokensScored": found.num_tokens_scored[0], "numGreenTokens": found.num_green_tokens[0], "greenFraction": found.green_fraction[0], "zScore": found.z_score[0], "pValue": float(found.p_value[0]), "prediction": bool(found.prediction[0]), "confidence": float(found.confidence[0])})
    green.append({"config": camel(fields), "outputs": outputs, "detections": detections})

synth = []
for fields in ({"ngram_len": 3, "keys": [654, 400, 836]}, {"ngram_len": 2, "keys": [1, 2**31 + 5], "sampling_table_seed": 7, "sampling_table_size": 1000, "context_history_size": 2}, {"ngram_len": 4, "keys": [99], "skip_first_ngram_calls": True}):
    config = SynthIDTextWatermarkingConfig(**fields)
    processor = config.construct_processor(V, "cpu")
    answer = [7, 9, 7, 9, 7, 9, 3, 7, 9]
    outputs = [rounded(processor(torch.tensor([ids + answer[:n]]), scores(n))) for n in range(len(answer) + 1)]
    synth.append({"config": camel(fields), "answer": answer, "outputs": outputs, "bits": processor.compute_g_values(torch.tensor([ids]))[0].tolist()})

model = InternVLForConditionalGeneration.from_pretrained(root / "models/demo", dtype=torch.float32).eval()
guided = []
for prompt, negative, fields in (([5, 9, 60, 7], [5, 30, 31], {}), ([5, 9, 60, 7], None, {}), ([33, 21, 8], [7, 7, 61, 2, 90], {"repetition_penalty": 1.3}), ([33, 21, 8], [7, 61], {"watermarking_config": WatermarkingConfig(bias=3.0)})):
    for scale in (0.3, 1.7):
        inputs = torch.tensor([prompt])
        out = model.generate(inputs, attention_mask=torch.ones_like(inputs), guidance_scale=scale, negative_prompt_ids=None if negative is None else torch.tensor([negative]), max_new_tokens=6, do_sample=False, eos_token_id=None, output_scores=True, return_dict_in_generate=True, **fields)
        options = {"repetitionPenalty": 1.3} if "repetition_penalty" in fields else {"watermarkingConfig": {"bias": 3}} if fields else {}
        guided.append({"prompt": prompt, "negative": negative, "scale": scale, "options": options, "tokens": out.sequences[0, len(prompt):].tolist(), "scores": [rounded(step[0, :12]) for step in out.scores]})

tokenizer = AutoTokenizer.from_pretrained(root / "models/demo")
tokenizer.bos_token = tokenizer.pad_token  # heal_tokens needs both
healed = []
for text in ("the colo", "how man", "What is the co", "a red tri", "blu", "The image has two squa", "one "):
    inputs = tokenizer(text, return_tensors="pt").input_ids
    healed.append({"text": text, "ids": inputs[0].tolist(), "healed": model.heal_tokens(inputs.clone(), tokenizer)[0].tolist()})
changed = sum(one["ids"] != one["healed"] for one in healed)
print("healed prompts:", changed, healed)
written = {"ids": ids, "vocabSize": V, "green": green, "synth": synth, "guided": guided, "healed": healed}
(Path(__file__).parent / "watermark.json").write_text(json.dumps(written, separators=(",", ":")) + "\n")
