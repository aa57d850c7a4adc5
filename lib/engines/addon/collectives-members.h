// Part of the addon of the native engine; setup adds this file to the sources of tfjs-node, see ../install/collectives-addon.ts.
// Members of the class TFJSBackend.

  static bool HasCollectives();
  void EnableCollectives(napi_env env, napi_value server_def, napi_value task);
  void ReportError(napi_env env, napi_value message);
  napi_value ExecuteOpAsync(napi_env env, napi_value op_name_value, napi_value attributes, napi_value inputs,
                            napi_value num_output_values);
  static void FinishAsyncOp(napi_env env, napi_status status, void *data);

 private:
  void FindDevice(napi_env env);
  std::string task_;  // "/job:worker/replica:0/task:1/" in a cluster: only devices of this task hold tensors

 public:
  bool has_cluster = false;
