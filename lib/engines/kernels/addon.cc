// Makes the library one that Node loads. Its ops register themselves meanwhile; JavaScript calls them through TensorFlow.

extern "C" __attribute__((visibility("default"))) void *napi_register_module_v1(void *, void *exports) { return exports; }
