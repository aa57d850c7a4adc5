import { cp, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = fileURLToPath(new URL('../addon', import.meta.url))

/** Replaces text that must occur once. Throws a `RangeError` where the sources of tfjs-node changed. */
const replaceOnce = (source: string, from: string, to: string): string => {
  const [before, after, ...more] = source.split(from)
  if (before === undefined || after === undefined || more.length > 0)
    throw new RangeError(`the sources of tfjs-node have no single place of: ${from}`)
  return before + to + after
}

const replaceAll = (source: string, changes: readonly (readonly [from: string, to: string])[]): string =>
  changes.reduce((text, [from, to]) => replaceOnce(text, from, to), source)

/** Includes the methods in `tfjs_backend.cc`. A context with a cluster is never deleted, because TensorFlow cannot stop its gRPC server. */
const backend = (source: string): string =>
  replaceAll(`#include <fcntl.h>\n#include <unistd.h>\n${source}`, [
    [
      'TFE_DeleteContextOptions(tfe_options);\n\n  TF_DeviceList *device_list',
      'TFE_DeleteContextOptions(tfe_options);\n  FindDevice(env);\n}\n\nvoid TFJSBackend::FindDevice(napi_env env) {\n  TF_AutoStatus tf_status;\n  TF_DeviceList *device_list'
    ],
    [
      '  for (int i = 0; i < num_devices; i++) {\n',
      '  for (int i = 0; i < num_devices; i++) {\n    if (std::string(TF_DeviceListName(device_list, i, tf_status.status)).rfind(task_, 0) != 0) continue;\n'
    ],
    ['if (tfe_context_ != nullptr) {', 'if (tfe_context_ != nullptr && !has_cluster) {'],
    [
      'TFJSBackend *TFJSBackend::Create(napi_env env)',
      '#include "addon/collectives-backend.cc"\nTFJSBackend *TFJSBackend::Create(napi_env env)'
    ]
  ])

const header = (source: string): string =>
  replaceOnce(source, '  bool is_gpu_device;\n', '  bool is_gpu_device;\n#include "addon/collectives-members.h"\n')

const binding = (source: string): string =>
  replaceAll(source, [
    ['static napi_value IsUsingGPUDevice(', '#include "addon/collectives-binding.cc"\nstatic napi_value IsUsingGPUDevice('],
    ['  // Export TF property types to JS\n', '  ExportCollectives(env, exports);\n  // Export TF property types to JS\n']
  ])

/**
 * Adds the functions for training on several machines to a copy of tfjs-node's C++ sources. The addon owns TensorFlow's eager context,
 * so that only the addon can make the context a member of a cluster.
 *
 * - `hasCollectives`: whether this build of TensorFlow has collective operations
 * - `enableCollectives(serverDef, task)` starts the gRPC server of a `ServerDef` and waits for the other tasks of the cluster
 * - `reportError(message)` tells the other tasks why this one ends; their operations then fail with the message
 * - `executeOpAsync(name, attributes, inputs, numOutputs)`: `executeOp` on a thread of libuv's pool, as a promise
 */
export const addCollectives = async (sources: string): Promise<void> => {
  await cp(folder, join(sources, 'addon'), { recursive: true })
  for (const [name, change] of [
    ['tfjs_backend.cc', backend],
    ['tfjs_backend.h', header],
    ['tfjs_binding.cc', binding]
  ] as const) {
    const path = join(sources, name)
    await writeFile(path, change(await readFile(path, 'utf8')))
  }
}
