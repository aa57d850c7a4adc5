"""GGUF files that llama.cpp itself quantizes, for `make_gguf.py`."""
import ctypes
from pathlib import Path

FILE_TYPES = {"q4_k_m": 15, "q5_k_m": 17}  # llama_ftype of llama.h: Q4_K or Q5_K, with Q6_K for some tensors


class Parameters(ctypes.Structure):
    _fields_ = [("threads", ctypes.c_int32), ("file_type", ctypes.c_int32), ("others", ctypes.c_char * 248)]  # llama_model_quantize_params is shorter


def llama_quantize(path, to, kind, libraries):
    """`llama_model_quantize`, which the program llama-quantize calls. `libraries` is the folder of llama.cpp's shared libraries."""
    for name in ("libggml-base*.so", "libggml-cpu-x64*.so", "libggml.*so", "libllama.*so"):
        llama = ctypes.CDLL(str(next(Path(libraries).glob(name))), mode=ctypes.RTLD_GLOBAL)
    llama.llama_model_quantize_default_params.restype = Parameters
    parameters = llama.llama_model_quantize_default_params()
    parameters.threads, parameters.file_type = 1, FILE_TYPES[kind]
    if llama.llama_model_quantize(str(path).encode(), str(to).encode(), ctypes.byref(parameters)) != 0: raise RuntimeError(f"llama.cpp did not quantize {path}")
