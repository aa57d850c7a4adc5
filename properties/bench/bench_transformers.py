"""Times Transformers on PyTorch (CPU) with a checkpoint folder and prints one JSON line, with the keys of `npm run bench`.

    python bench_transformers.py --checkpoint DIR --dtype float32|bfloat16 [--tiles 1] [--new-tokens 32] [--runs 3] [--load]
"""
import argparse, json, resource, time
import torch
from transformers import InternVLForConditionalGeneration

a = argparse.ArgumentParser()
a.add_argument("--checkpoint", required=True)
a.add_argument("--dtype", default="float32")
a.add_argument("--tiles", type=int, default=1)
a.add_argument("--new-tokens", type=int, default=32)
a.add_argument("--runs", type=int, default=3)
a.add_argument("--load", action="store_true", help="load the model, no more")
args = a.parse_args()


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clock:
    """A streamer that notes when each token came; the first call brings the prompt."""

    def __init__(self):
        self.stamps = []

    def put(self, _):
        self.stamps.append(time.time())

    def end(self):
        pass


begun = time.time()
model = InternVLForConditionalGeneration.from_pretrained(args.checkpoint, dtype=getattr(torch, args.dtype)).eval()
sum(float(p.view(-1)[0]) for p in model.parameters())  # touch every tensor: files may be mapped
report = dict(engine="transformers", dtype=args.dtype, load_s=time.time() - begun)
if not args.load:
    c = model.config
    torch.manual_seed(1)
    words = torch.randint(0, min(600, c.text_config.vocab_size), (1, 64))
    words[words == c.image_token_id] = 1
    image = torch.full((1, c.image_seq_length * args.tiles), c.image_token_id)
    ids = torch.cat([words[:, :20], image, words[:, 20:]], 1)
    pixels = torch.randn(args.tiles, 3, *c.vision_config.image_size)
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels)
    n = args.new_tokens + 1
    vision, prefill, decode = [], [], []
    with torch.inference_mode():
        for _ in range(args.runs):
            t = time.time()
            model.model.get_image_features(pixel_values=pixels)
            vision.append(time.time() - t)
            clock = Clock()
            t = time.time()
            model.generate(**inputs, max_new_tokens=n, min_new_tokens=n, do_sample=False, streamer=clock)
            prefill.append(clock.stamps[1] - t)
            decode.append((len(clock.stamps) - 2) / (clock.stamps[-1] - clock.stamps[1]))
    report |= dict(tiles=args.tiles, tokens=ids.shape[1], vision_s=min(vision), prefill_s=min(prefill), decode_tokens_per_s=max(decode))
print(json.dumps(report | dict(peak_rss_mb=peak_mb())))
