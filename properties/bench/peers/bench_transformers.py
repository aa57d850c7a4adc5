"""Times Transformers on PyTorch (the GPU where there is one) with a checkpoint folder and prints one JSON line, with the keys of `npm run bench`.

    python bench_transformers.py --checkpoint DIR --dtype float32|bfloat16 [--tiles N | --context N | --batch N | --load]
                                 [--new-tokens 32] [--runs 3]

vision_s: vision tower and projector on all tiles · prefill_s: first token from ready inputs, vision included ·
decode_tokens_per_s: further tokens one at a time, of all rows · samples: the values of every run; the top level has the best of the runs.
"""
import argparse, json, resource, time
import torch
from transformers import InternVLForConditionalGeneration

a = argparse.ArgumentParser()
a.add_argument("--checkpoint", required=True)
a.add_argument("--dtype", default="float32")
a.add_argument("--tiles", type=int, default=1, help="tiles of the image, with 64 words around it")
a.add_argument("--context", type=int, help="number of words of a prompt without image")
a.add_argument("--batch", type=int, help="number of rows of 64 words, without image")
a.add_argument("--new-tokens", type=int, default=32)
a.add_argument("--runs", type=int, default=3)
a.add_argument("--load", action="store_true", help="load the model only")
args = a.parse_args()


class Clock:
    """A streamer that records the time of every token; the first call passes the prompt."""

    def __init__(self):
        self.stamps = []

    def put(self, _):
        self.stamps.append(time.time())

    def end(self):
        pass


def make_inputs(c):
    torch.manual_seed(1)
    words = torch.randint(0, min(600, c.text_config.vocab_size), (args.batch or 1, args.context or 64))
    words[words == c.image_token_id] = 1
    if args.context or args.batch:
        return dict(input_ids=words, attention_mask=torch.ones_like(words))
    image = torch.full((1, c.image_seq_length * args.tiles), c.image_token_id)
    ids = torch.cat([words[:, :20], image, words[:, 20:]], 1)
    pixels = torch.randn(args.tiles, 3, *c.vision_config.image_size)
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels)


device = "cuda" if torch.cuda.is_available() else "cpu"
start = time.time()
model = InternVLForConditionalGeneration.from_pretrained(args.checkpoint, dtype=getattr(torch, args.dtype)).eval().to(device)
sum(float(p.view(-1)[0]) for p in model.parameters())  # touch every tensor: files may be mapped
report, samples = dict(engine="transformers", dtype=args.dtype), dict(load_s=[time.time() - start])
if not args.load:
    inputs = {name: x.to(device) for name, x in make_inputs(model.config).items()}
    rows, tokens = inputs["input_ids"].shape
    pixels = inputs.get("pixel_values")
    n = args.new_tokens + 1
    samples |= dict(vision_s=[]) if pixels is not None else {}
    samples |= dict(prefill_s=[], decode_tokens_per_s=[])
    with torch.inference_mode():
        for _ in range(args.runs):
            if pixels is not None:
                t = time.time()
                model.model.get_image_features(pixel_values=pixels)
                if device == "cuda":
                    torch.cuda.synchronize()
                samples["vision_s"].append(time.time() - t)
            clock = Clock()
            t = time.time()
            model.generate(**inputs, max_new_tokens=n, min_new_tokens=n, do_sample=False, streamer=clock)
            samples["prefill_s"].append(clock.stamps[1] - t)
            samples["decode_tokens_per_s"].append(rows * (len(clock.stamps) - 2) / (clock.stamps[-1] - clock.stamps[1]))
    report |= dict(tiles=args.tiles if pixels is not None else 0, tokens=tokens)
samples["peak_rss_mb"] = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
if device == "cuda":
    samples["peak_gpu_mb"] = [torch.cuda.max_memory_allocated() / 2**20]
best = {key: (max if key == "decode_tokens_per_s" else min)(values) for key, values in samples.items()}
print(json.dumps(report | best | dict(samples=samples)))
