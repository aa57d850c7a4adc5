// The library as an addon of Node.js: `require` returns `{ parameters, version }`, the parameter buffer of the calling thread and the version of
// the schema.
#include <cstddef>
#include "operator/kernel-enums.h"
#include "operator/parameter-buffer.h"

// The part of Node-API that is used; Node.js provides it. Source: js_native_api.h.
extern "C" {
int napi_create_arraybuffer(void *env, size_t bytes, void **data, void **result);
int napi_create_typedarray(void *env, int type, size_t length, void *buffer, size_t offset, void **result);
int napi_create_string_utf8(void *env, const char *text, size_t length, void **result);
int napi_create_reference(void *env, void *value, unsigned count, void **result);
int napi_set_named_property(void *env, void *object, const char *name, void *value);
}

thread_local double *parameterBuffer = nullptr;

extern "C" __attribute__((visibility("default"))) void *napi_register_module_v1(void *env, void *exports) {
  constexpr int float64 = 8;
  void *data = nullptr, *buffer = nullptr, *array = nullptr, *reference = nullptr, *version = nullptr;
  if (napi_create_arraybuffer(env, maxParameters * sizeof(double), &data, &buffer) == 0 &&
      napi_create_typedarray(env, float64, maxParameters, buffer, 0, &array) == 0 && napi_create_reference(env, array, 1, &reference) == 0 &&
      napi_set_named_property(env, exports, "parameters", array) == 0 &&
      napi_create_string_utf8(env, schemaVersion, sizeof schemaVersion - 1, &version) == 0 &&
      napi_set_named_property(env, exports, "version", version) == 0)
    parameterBuffer = static_cast<double *>(data);
  return exports;
}
