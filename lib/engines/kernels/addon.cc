// Makes the library one that Node loads: `require` gives `{ numbers }`, memory in which a caller leaves what is no tensor.
#include <cstddef>
#include "numbers.h"

// The part of Node-API that is used, which Node itself provides. Source: js_native_api.h.
extern "C" {
int napi_create_arraybuffer(void *env, size_t bytes, void **data, void **result);
int napi_create_typedarray(void *env, int type, size_t length, void *buffer, size_t offset, void **result);
int napi_create_reference(void *env, void *value, unsigned count, void **result);
int napi_set_named_property(void *env, void *object, const char *name, void *value);
}

thread_local double *numbers = nullptr;

extern "C" __attribute__((visibility("default"))) void *napi_register_module_v1(void *env, void *exports) {
  constexpr int float64 = 8;
  void *data = nullptr, *buffer = nullptr, *array = nullptr, *reference = nullptr;
  if (napi_create_arraybuffer(env, mostNumbers * sizeof(double), &data, &buffer) == 0 &&
      napi_create_typedarray(env, float64, mostNumbers, buffer, 0, &array) == 0 && napi_create_reference(env, array, 1, &reference) == 0 &&
      napi_set_named_property(env, exports, "numbers", array) == 0)
    numbers = static_cast<double *>(data);
  return exports;
}
