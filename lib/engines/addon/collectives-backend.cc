// Part of the addon of the native engine; setup adds this file to the sources of tfjs-node, see ../install/collectives-addon.ts.
// TensorFlow's functions are weak symbols: where a build of TensorFlow lacks them, the addon still loads and HasCollectives is false.
// Source: tensorflow/c/eager/c_api_experimental.h of TensorFlow 2.18.
extern "C" {
__attribute__((weak)) void TFE_EnableCollectiveOps(TFE_Context *ctx, const void *proto, size_t proto_len, TF_Status *status);
__attribute__((weak)) void TFE_ReportErrorToCluster(TFE_Context *ctx, int error_code, const char *message, TF_Status *status);
}

namespace {

// Mutes standard error while it exists: TensorFlow's servers log through absl, which no setting of this library reaches.
class MutedErrors {
 public:
  MutedErrors() : saved_(dup(2)) {
    int null = open("/dev/null", O_WRONLY);
    if (null >= 0) dup2(null, 2);
    if (null >= 0) close(null);
  }
  ~MutedErrors() {
    if (saved_ >= 0) dup2(saved_, 2);
    if (saved_ >= 0) close(saved_);
  }

 private:
  int saved_;
};

}  // namespace

bool TFJSBackend::HasCollectives() { return &TFE_EnableCollectiveOps != nullptr && &TFE_ReportErrorToCluster != nullptr; }

void TFJSBackend::EnableCollectives(napi_env env, napi_value server_def, napi_value task) {
  void *data;
  size_t length;
  ENSURE_NAPI_OK(env, napi_get_typedarray_info(env, server_def, nullptr, &length, &data, nullptr, nullptr));
  if (!HasCollectives()) {
    NAPI_THROW_ERROR(env, "this build of TensorFlow has no collective operations");
    return;
  }
  if (!tfe_handle_map_.empty()) {
    NAPI_THROW_ERROR(env, "collective operations must be enabled before the first tensor exists");
    return;
  }
  TF_AutoStatus tf_status;
  has_cluster = true;
  ENSURE_NAPI_OK(env, GetStringParam(env, task, task_));
  {
    MutedErrors muted;
    TFE_EnableCollectiveOps(tfe_context_, data, length, tf_status.status);
  }
  ENSURE_TF_OK(env, tf_status);
  device_name.clear();  // the cluster renames the devices, and lists those of every task
  FindDevice(env);
}

void TFJSBackend::ReportError(napi_env env, napi_value message) {
  std::string text;
  ENSURE_NAPI_OK(env, GetStringParam(env, message, text));
  if (!has_cluster) return;
  TF_AutoStatus tf_status;
  MutedErrors muted;
  TFE_ReportErrorToCluster(tfe_context_, TF_ABORTED, text.c_str(), tf_status.status);
}

namespace {

struct AsyncOp {
  TFJSBackend *backend;
  TFE_Op *op;
  TF_Status *status;
  std::vector<TFE_TensorHandle *> outputs;
  napi_deferred deferred;
  napi_async_work work;
};

void RunAsyncOp(napi_env, void *data) {
  AsyncOp *async = static_cast<AsyncOp *>(data);
  int count = static_cast<int>(async->outputs.size());
  TFE_Execute(async->op, async->outputs.data(), &count, async->status);
  async->outputs.resize(count);
}

}  // namespace

void TFJSBackend::FinishAsyncOp(napi_env env, napi_status, void *data) {
  std::unique_ptr<AsyncOp> async(static_cast<AsyncOp *>(data));
  napi_value result = nullptr;
  if (TF_GetCode(async->status) == TF_OK) {
    napi_create_array_with_length(env, async->outputs.size(), &result);
    for (uint32_t i = 0; i < async->outputs.size(); i++)
      napi_set_element(env, result, i, async->backend->GenerateOutputTensorInfo(env, async->outputs[i]));
    napi_resolve_deferred(env, async->deferred, result);
  } else {
    napi_value message;
    napi_create_string_utf8(env, TF_Message(async->status), NAPI_AUTO_LENGTH, &message);
    napi_create_error(env, nullptr, message, &result);
    napi_reject_deferred(env, async->deferred, result);
  }
  TFE_DeleteOp(async->op);
  TF_DeleteStatus(async->status);
  napi_delete_async_work(env, async->work);
}

napi_value TFJSBackend::ExecuteOpAsync(napi_env env, napi_value op_name_value, napi_value attributes, napi_value inputs,
                                       napi_value num_output_values) {
  std::string op_name;
  ENSURE_NAPI_OK_RETVAL(env, GetStringParam(env, op_name_value, op_name), nullptr);
  TF_AutoStatus tf_status;
  TFE_AutoOp tfe_op(TFE_NewOp(tfe_context_, op_name.c_str(), tf_status.status));
  ENSURE_TF_OK_RETVAL(env, tf_status, nullptr);
  uint32_t length;
  ENSURE_NAPI_OK_RETVAL(env, napi_get_array_length(env, inputs, &length), nullptr);
  for (uint32_t i = 0; i < length; i++) {
    napi_value element;
    int32_t id;
    ENSURE_NAPI_OK_RETVAL(env, napi_get_element(env, inputs, i, &element), nullptr);
    ENSURE_NAPI_OK_RETVAL(env, napi_get_value_int32(env, element, &id), nullptr);
    auto entry = tfe_handle_map_.find(id);
    if (entry == tfe_handle_map_.end()) {
      NAPI_THROW_ERROR(env, "Input Tensor ID not referenced (tensor_id: %d)", id);
      return nullptr;
    }
    TFE_OpAddInput(tfe_op.op, entry->second, tf_status.status);  // the op holds a reference: the tensor may be deleted meanwhile
    ENSURE_TF_OK_RETVAL(env, tf_status, nullptr);
  }
  ENSURE_NAPI_OK_RETVAL(env, napi_get_array_length(env, attributes, &length), nullptr);
  for (uint32_t i = 0; i < length; i++) {
    napi_value attribute;
    ENSURE_NAPI_OK_RETVAL(env, napi_get_element(env, attributes, i, &attribute), nullptr);
    AssignOpAttr(env, tfe_op.op, attribute);
    if (IsExceptionPending(env)) return nullptr;
  }
  int32_t count;
  ENSURE_NAPI_OK_RETVAL(env, napi_get_value_int32(env, num_output_values, &count), nullptr);
  std::unique_ptr<AsyncOp> async(new AsyncOp{this, tfe_op.op, TF_NewStatus(), std::vector<TFE_TensorHandle *>(count, nullptr)});
  tfe_op.op = nullptr;  // now owned by async
  napi_value promise, name;
  ENSURE_NAPI_OK_RETVAL(env, napi_create_promise(env, &async->deferred, &promise), nullptr);
  ENSURE_NAPI_OK_RETVAL(env, napi_create_string_utf8(env, "executeOpAsync", NAPI_AUTO_LENGTH, &name), nullptr);
  ENSURE_NAPI_OK_RETVAL(
      env, napi_create_async_work(env, nullptr, name, RunAsyncOp, FinishAsyncOp, async.get(), &async->work), nullptr);
  ENSURE_NAPI_OK_RETVAL(env, napi_queue_async_work(env, async->work), nullptr);
  async.release();
  return promise;
}
