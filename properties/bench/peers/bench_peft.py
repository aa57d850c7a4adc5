"""Times training steps with Transformers (CPU, float32) and prints one JSON line, with the keys of `npm run bench -- --train`.

    python bench_peft.py --checkpoint DIR [--adapter DIR] [--batch 1] [--steps 10]

The adapter holds the initial values of LoRA, in PEFT's format, and everything else is frozen; without one all weights are trained. A step
is forward, backward, gradient clipping and AdamW, on the same rows every time: one tile and 80 words, of which the last 40 are
supervised. The first of several steps is not counted.
"""
import argparse, json, resource, time
import torch
from transformers import InternVLForConditionalGeneration

a = argparse.ArgumentParser()
a.add_argument("--checkpoint", required=True)
a.add_argument("--adapter")
a.add_argument("--batch", type=int, default=1)
a.add_argument("--steps", type=int, default=10)
args = a.parse_args()


def make_batch(c):
    """The batch of `trainingBatch` in inputs.ts."""
    words = [[((i + row) * 7919 + 13) % min(600, c.text_config.vocab_size) for i in range(80)] for row in range(args.batch)]
    words = [[1 if i == c.image_token_id else i for i in row] for row in words]
    ids = torch.tensor([[*row[:20], *[c.image_token_id] * c.image_seq_length, *row[20:]] for row in words])
    labels = torch.where(torch.arange(ids.shape[1]) < ids.shape[1] - 40, -100, ids)
    shape = (args.batch, c.vision_config.num_channels, *c.vision_config.image_size)
    pixels = torch.arange(torch.Size(shape).numel(), dtype=torch.float64).sin().float().reshape(shape)
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, pixel_values=pixels)


def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


device = "cuda" if torch.cuda.is_available() else "cpu"
start = time.time()
base = InternVLForConditionalGeneration.from_pretrained(args.checkpoint, dtype=torch.float32).to(device)
sum(float(p.view(-1)[0]) for p in base.parameters())  # touch every tensor: files may be mapped
load_s = time.time() - start
if args.adapter:
    from peft import PeftModel

    model = PeftModel.from_pretrained(base, args.adapter, is_trainable=True).train()
else:
    model = base.train()
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01, fused=True)
inputs = {name: x.to(device) for name, x in make_batch(base.config).items()}
losses, seconds, memory = [], [], []
for step in range(1, args.steps + 1):
    t = time.time()
    loss = model(**inputs, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    seconds.append(time.time() - t)
    if step in (min(10, args.steps), args.steps):
        memory.append([step, resident_mb()])
counted = seconds[1:] or seconds
tokens = inputs["input_ids"].numel()
samples = dict(load_s=[load_s], step_s=counted, trained_tokens_per_s=[tokens / s for s in counted])
samples["peak_rss_mb"] = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
print(json.dumps(dict(engine="peft" if args.adapter else "pytorch", dtype="float32", tokens=tokens, losses=losses, memory=memory, samples=samples)))
