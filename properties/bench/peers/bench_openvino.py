"""Times one part of what openvino_convert.py wrote and prints one JSON line, with the keys of `npm run bench`.

    python bench_openvino.py --models OUT --part vision --type f32|int8 [--tiles 1] [--runs 3]
    python bench_openvino.py --models OUT --part decoder --type int8|int4 [--prompt 320] [--new-tokens 32] [--runs 3]

Sums are in float32; int8 weights take dynamic quantization of activations all the same.
"""
import argparse, json, resource, time
import numpy as np
import openvino as ov

a = argparse.ArgumentParser()
a.add_argument("--models", required=True)
a.add_argument("--part", choices=["vision", "decoder"], required=True)
a.add_argument("--type", required=True)
a.add_argument("--tiles", type=int, default=1)
a.add_argument("--prompt", type=int, default=320)
a.add_argument("--new-tokens", type=int, default=32)
a.add_argument("--runs", type=int, default=3)
args = a.parse_args()

core = ov.Core()
path = f"{args.models}/vision-{args.type}.xml" if args.part == "vision" else f"{args.models}/decoder-{args.type}/openvino_model.xml"
start = time.time()
model = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
request = model.create_infer_request()
samples = dict(load_s=[time.time() - start])


def vision():
    """One tile at a time, which is OpenVINO's fastest order; the first run is a warm-up."""
    size = [int(d.get_length()) if d.is_static else 448 for d in model.inputs[0].partial_shape][2:]
    x = np.random.randn(1, 3, *size).astype(np.float32)
    seconds = []
    for _ in range(args.runs + 1):
        t = time.time()
        for _ in range(args.tiles):
            request.infer([x])
        seconds.append(time.time() - t)
    return dict(vision_s=seconds[1:])


def decoder():
    names = {n for i in model.inputs for n in i.get_names()}

    def step(ids, past):
        inputs = dict(
            input_ids=np.array([ids], np.int64),
            attention_mask=np.ones((1, past + len(ids)), np.int64),
            position_ids=np.arange(past, past + len(ids), dtype=np.int64)[None],
            beam_idx=np.zeros(1, np.int32),
        )
        return request.infer({k: v for k, v in inputs.items() if k in names})[model.outputs[0]]

    prefill, decode = [], []
    for _ in range(args.runs):
        request.reset_state()
        t = time.time()
        logits = step([(i * 7919 + 13) % 600 for i in range(args.prompt)], 0)
        prefill.append(time.time() - t)
        t = time.time()
        for k in range(args.new_tokens):
            logits = step([int(logits[0, -1].argmax()) % 600], args.prompt + k)
        decode.append(args.new_tokens / (time.time() - t))
    return dict(prefill_s=prefill, decode_tokens_per_s=decode)


samples |= vision() if args.part == "vision" else decoder()
samples["peak_rss_mb"] = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
tokens = 0 if args.part == "vision" else args.prompt
print(json.dumps(dict(engine=f"OpenVINO {ov.__version__.split('-')[0]}", dtype=args.type, tokens=tokens, samples=samples)))
