"""Logits of llama.cpp beside a GGUF file, for text without images: `python make_llama_cpp.py FOLDER ...` writes FOLDER/llama-cpp.json with the ids, the
logits of the last position (`logits`), and those of a copy of the file with float32 weights (`plain`; llama-cpp-python 0.3.36, gguf 0.19, on the
CPU, with a float32 KV cache). With quantized weights llama.cpp rounds activations to 8 bits before it multiplies."""
import json
import sys
import tempfile
from pathlib import Path
import gguf
from llama_cpp import Llama

ids = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]


def logits_of(path):
    llama = Llama(str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0)
    llama.eval(ids)
    return [round(float(x), 5) for x in llama.scores[len(ids) - 1]]


def plain_copy(path, to):
    """The file with every tensor in float32."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(to, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture": continue
        writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype("float32"))
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()


for folder in map(Path, sys.argv[1:]):
    with tempfile.TemporaryDirectory() as scratch:
        plain_copy(folder / "model.gguf", Path(scratch) / "plain.gguf")
        logits = dict(ids=ids, logits=logits_of(folder / "model.gguf"), plain=logits_of(Path(scratch) / "plain.gguf"))
    (folder / "llama-cpp.json").write_text(json.dumps(logits))
    print(folder, len(logits["logits"]))
