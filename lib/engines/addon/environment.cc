// Copies the settings that TensorFlow, CUDA and OpenMP read with `getenv` from `process.env` to the environment of the process. In a worker
// thread, `process.env` is a copy that `getenv` does not see. The addon is loaded before TensorFlow's library, which reads some settings while
// it is loaded.
#include <node_api.h>
#include <stdlib.h>
#include <string.h>
#include <initializer_list>

NAPI_MODULE_INIT() {
  napi_value environment;
  if (napi_get_global(env, &environment) != napi_ok || napi_get_named_property(env, environment, "process", &environment) != napi_ok ||
      napi_get_named_property(env, environment, "env", &environment) != napi_ok)
    return exports;
  for (const char *name : {"TF_CPP_MIN_LOG_LEVEL", "TF_FORCE_GPU_ALLOW_GROWTH", "NVIDIA_TF32_OVERRIDE", "TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS",
                           "CUDA_VISIBLE_DEVICES"}) {
    napi_value value;
    char text[256];
    size_t length;
    if (napi_get_named_property(env, environment, name, &value) != napi_ok ||
        napi_get_value_string_utf8(env, value, text, sizeof text, &length) != napi_ok)
      continue;
    const char *current = getenv(name);
    if (!current || strcmp(current, text) != 0) setenv(name, text, 1);
  }
  return exports;
}
