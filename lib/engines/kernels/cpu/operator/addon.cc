// The library as an addon of Node.js: `require` returns `{ parameters, settings, gemmKinds, version }`: the parameter buffer and the settings of
// the calling thread, the kinds of GEMM that the processor can run, and the version of the schema.
#include <cstddef>
#include "gemm/gemm-kind.h"
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

namespace {
/** Sets a property of `exports` to `length` float64 numbers of the buffer, from number `first` on. */
bool exportNumbers(void *env, void *exports, const char *name, void *buffer, int first, int length) {
  constexpr int float64 = 8;
  void *array = nullptr, *reference = nullptr;
  return napi_create_typedarray(env, float64, length, buffer, first * sizeof(double), &array) == 0 &&
         napi_create_reference(env, array, 1, &reference) == 0 && napi_set_named_property(env, exports, name, array) == 0;
}

bool exportText(void *env, void *exports, const char *name, const char *text, size_t length) {
  void *value = nullptr;
  return napi_create_string_utf8(env, text, length, &value) == 0 && napi_set_named_property(env, exports, name, value) == 0;
}
} // namespace

extern "C" __attribute__((visibility("default"))) void *napi_register_module_v1(void *env, void *exports) {
  void *data = nullptr, *buffer = nullptr;
  const std::string kinds = gemmKindNames();
  if (napi_create_arraybuffer(env, (maxParameters + numSettings) * sizeof(double), &data, &buffer) == 0 &&
      exportNumbers(env, exports, "parameters", buffer, 0, maxParameters) && exportNumbers(env, exports, "settings", buffer, maxParameters, numSettings) &&
      exportText(env, exports, "gemmKinds", kinds.data(), kinds.size()) &&
      exportText(env, exports, "version", schemaVersion, sizeof schemaVersion - 1))
    parameterBuffer = static_cast<double *>(data);
  return exports;
}
