"""Writes cuda-kernels.json: the kernels for GPUs that TensorFlow's CUDA build registers for the ops named in the file ops.txt beside this script.

    pip install --no-deps tensorflow==2.18.0   # the CUDA build; it loads without a GPU
    python cuda_kernels.py path/to/site-packages/tensorflow

An entry of an op is [types, host]: the values of its type attributes, and the names of the inputs and outputs that the kernel has in host memory.
"""

import ctypes
import json
import pathlib
import sys

here = pathlib.Path(__file__).parent
folder = pathlib.Path(sys.argv[1])
ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"), mode=ctypes.RTLD_GLOBAL)
library = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"), mode=ctypes.RTLD_GLOBAL)


class Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]


library.TF_NewStatus.restype = ctypes.c_void_p
library.TF_GetRegisteredKernelsForOp.restype = ctypes.POINTER(Buffer)
library.TF_GetRegisteredKernelsForOp.argtypes = [ctypes.c_char_p, ctypes.c_void_p]

# tensorflow/core/framework/types.proto
types = {1: "float32", 3: "int32", 4: "uint8", 6: "int8", 9: "int64", 10: "bool", 14: "bfloat16", 19: "float16"}


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data):
    """Numbers and values of the fields of a protobuf message."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 2:
            size, at = varint(data, at)
            yield tag >> 3, data[at : at + size]
            at += size
        elif tag & 7 == 0:
            value, at = varint(data, at)
            yield tag >> 3, value
        else:
            at += 4 if tag & 7 == 5 else 8


def listed_types(value):
    """Types of an AttrValue: its list (field 1), whose types are field 6, packed."""
    for number, content in fields(value):
        for inner, packed in fields(content) if number == 1 else ():
            at = 0
            while inner == 6 and at < len(packed):
                code, at = varint(packed, at)
                yield types.get(code)


def gpu_kernels(op):
    """Source: tensorflow/core/framework/kernel_def.proto."""
    buffer = library.TF_GetRegisteredKernelsForOp(op.encode(), library.TF_NewStatus())
    for _, kernel in fields(ctypes.string_at(buffer.contents.data, buffer.contents.length)):
        device, constraints, host = None, {}, []
        for number, value in fields(kernel):
            if number == 2:
                device = value.decode()
            elif number == 3:
                content = dict(fields(value))
                constraints[content[1].decode()] = [t for t in listed_types(content[2])]
            elif number == 4:
                host.append(value.decode())
        known = {name: [t for t in listed if t] for name, listed in constraints.items()}
        if device == "GPU" and all(known.values()):
            yield [known, host]


ops = (here / "ops.txt").read_text().split()
table = {op: sorted(gpu_kernels(op), key=json.dumps) for op in ops}
lines = [f"  {json.dumps(op)}: [\n" + ",\n".join(f"    {json.dumps(kernel)}" for kernel in kernels) + "\n  ]" for op, kernels in table.items()]
(here / "cuda-kernels.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
