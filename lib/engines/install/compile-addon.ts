import { existsSync } from 'node:fs'
import { cp, readFile, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, issue } from '../../error.js'
import { addCollectives } from './collectives-addon.js'
import { type Command, errorLine, type FailedProcess, type ProcessOptions, runProcess } from './run-process.js'
import { installHint } from './toolchain.js'

const require = createRequire(import.meta.url)

/** Folder of the C++ sources of @tensorflow/tfjs-node-gpu: a copy in the published package, the devDependency in a checkout. */
const sourceFolder = (): string => {
  const copied = fileURLToPath(new URL('../binding', import.meta.url))
  return existsSync(copied) ? copied : join(dirname(require.resolve('@tensorflow/tfjs-node-gpu/package.json')), 'binding')
}

/** C++ that reads a JavaScript array into `values` and sets the op's list attribute. */
const listAttribute = (values: string, set: string): string => `
      if (IsArray(env, nstatus, &js_value)) {
        uint32_t length;
        nstatus = napi_get_array_length(env, js_value, &length);
        ENSURE_NAPI_OK(env, nstatus);
        ${values}
        for (uint32_t i = 0; i < length; ++i) {
          napi_value element;
          nstatus = napi_get_element(env, js_value, i, &element);
          ENSURE_NAPI_OK(env, nstatus);
          ${set}
        break;
      }`

/** Adds attributes that are lists of strings or types to the binding; fused ops need both: `_FusedMatMul` has `fused_ops: list(string)`. */
const withListAttributes = (source: string): string =>
  source
    .replace(
      'case TF_ATTR_STRING: {',
      (head) =>
        head +
        listAttribute(
          'std::vector<std::string> values(length); std::vector<const void *> data; std::vector<size_t> sizes;',
          `nstatus = GetStringParam(env, element, values[i]);
          ENSURE_NAPI_OK(env, nstatus);
          data.push_back(values[i].data()); sizes.push_back(values[i].size());
        }
        TFE_OpSetAttrStringList(tfe_op, attr_name, data.data(), sizes.data(), static_cast<int>(length));`
        )
    )
    .replace(
      'case TF_ATTR_TYPE: {',
      (head) =>
        head +
        listAttribute(
          'std::vector<TF_DataType> values(length);',
          `int32_t value;
          nstatus = napi_get_value_int32(env, element, &value);
          ENSURE_NAPI_OK(env, nstatus);
          values[i] = static_cast<TF_DataType>(value);
        }
        TFE_OpSetAttrTypeList(tfe_op, attr_name, values.data(), static_cast<int>(length));`
        )
    )

const rpath: readonly string[] =
  process.platform === 'darwin'
    ? ['-undefined', 'dynamic_lookup', '-Wl,-rpath,@loader_path/tensorflow']
    : ['-Wl,-rpath,$ORIGIN/tensorflow']

const rewrite = async (path: string, change: (source: string) => string): Promise<void> =>
  writeFile(path, change(await readFile(path, 'utf8')))

const copySources = async (folder: string): Promise<void> => {
  await cp(sourceFolder(), folder, { recursive: true })
  await rewrite(join(folder, 'tfjs_backend.cc'), withListAttributes)
  await addCollectives(folder)
}

const compileIssue =
  (compiler: Command, env: NodeJS.ProcessEnv) =>
  (failed: FailedProcess): Issues => {
    const fix = installHint('compiler', env)
    const message = `${compiler.join(' ')} could not compile the addon (${errorLine(failed)}); a compiler with C++17 comes with \`${fix}\``
    return [issue('CompileFailed', message, { fix })]
  }

/**
 * Compiles the addon of tfjs-node against the unpacked `<engine>/tensorflow`, to `<engine>/tfjs_binding.node`, and `environment.node`, which
 * is loaded before it; the sources are copied to `scratch`. The libraries are linked by path, because the wheel has no `libtensorflow_cc.so`
 * without a version.
 */
export const compileAddon = (
  compiler: Command,
  engine: string,
  scratch: string,
  libraries: readonly string[],
  options: ProcessOptions
): TE.TaskEither<Issues, string> => {
  const [sources, addon] = [join(scratch, 'binding'), join(engine, 'tfjs_binding.node')]
  const includes = [require('node-api-headers').include_dir as string, join(engine, 'tensorflow', 'include'), sources]
  const flags = ['-O2', '-std=c++17', '-fPIC', '-shared', '-DNAPI_VERSION=8', ...includes.map((path) => `-I${path}`)]
  const inputs = ['tfjs_backend.cc', 'tfjs_binding.cc'].map((name) => join(sources, name))
  const linked = libraries.map((name) => join(engine, 'tensorflow', name))
  const compile = (...args: readonly string[]) => runProcess(compiler, [...flags, ...args, ...rpath], options)
  return pipe(
    TE.fromTask(() => copySources(sources)),
    TE.chain(() => compile(join(sources, 'addon', 'environment.cc'), '-o', join(engine, 'environment.node'))),
    TE.chain(() => compile(...inputs, ...linked, '-o', addon)),
    TE.bimap(compileIssue(compiler, options.env), () => addon)
  )
}

/** Loads the addon in a child process and returns TensorFlow's version, so that only an addon that loads is published. */
export const checkAddon = (addon: string, options: ProcessOptions): TE.TaskEither<Issues, string> =>
  pipe(
    runProcess([process.execPath], ['-p', `require(${JSON.stringify(addon)}).TF_Version`], {
      ...options,
      env: { ...options.env, TF_CPP_MIN_LOG_LEVEL: '3', NODE_OPTIONS: '' }
    }),
    TE.bimap(
      (failed): Issues => [issue('BrokenEngine', `the compiled addon does not load (${errorLine(failed)})`, { path: addon })],
      (version) => version.trim()
    )
  )
