// Part of the addon of the native engine; setup adds this file to the sources of tfjs-node, see ../install/collectives-addon.ts.
static napi_value EnableCollectives(napi_env env, napi_callback_info info) {
  size_t argc = 2;
  napi_value args[2];
  ENSURE_NAPI_OK_RETVAL(env, napi_get_cb_info(env, info, &argc, args, nullptr, nullptr), nullptr);
  TFJSBackend *backend = GetTFJSBackend(env);
  if (backend) backend->EnableCollectives(env, args[0], args[1]);
  return nullptr;
}

static napi_value ReportError(napi_env env, napi_callback_info info) {
  size_t argc = 1;
  napi_value arg;
  ENSURE_NAPI_OK_RETVAL(env, napi_get_cb_info(env, info, &argc, &arg, nullptr, nullptr), nullptr);
  TFJSBackend *backend = GetTFJSBackend(env);
  if (backend) backend->ReportError(env, arg);
  return nullptr;
}

static napi_value ExecuteOpAsync(napi_env env, napi_callback_info info) {
  size_t argc = 4;
  napi_value args[4];
  ENSURE_NAPI_OK_RETVAL(env, napi_get_cb_info(env, info, &argc, args, nullptr, nullptr), nullptr);
  TFJSBackend *backend = GetTFJSBackend(env);
  return backend ? backend->ExecuteOpAsync(env, args[0], args[1], args[2], args[3]) : nullptr;
}

static napi_value ExportCollectives(napi_env env, napi_value exports) {
  napi_value has_collectives;
  napi_get_boolean(env, TFJSBackend::HasCollectives(), &has_collectives);
  napi_property_descriptor collectives[] = {
      {"hasCollectives", nullptr, nullptr, nullptr, nullptr, has_collectives, napi_default, nullptr},
      {"enableCollectives", nullptr, EnableCollectives, nullptr, nullptr, nullptr, napi_default, nullptr},
      {"reportError", nullptr, ReportError, nullptr, nullptr, nullptr, napi_default, nullptr},
      {"executeOpAsync", nullptr, ExecuteOpAsync, nullptr, nullptr, nullptr, napi_default, nullptr},
  };
  ENSURE_NAPI_OK_RETVAL(env, napi_define_properties(env, exports, ARRAY_SIZE(collectives), collectives), exports);
  return exports;
}
