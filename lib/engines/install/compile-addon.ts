import { existsSync } from 'node:fs'
import { cp, readFile, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, issue } from '../../error.js'
import { type Command, complaint, type Failed, type RunOptions, run } from './process.js'
import { installHint } from './toolchain.js'

const require = createRequire(import.meta.url)

/** The C++ sources of @tensorflow/tfjs-node-gpu: copied beside this file in the published package, the devDependency's in a checkout. */
const sourceFolder = (): string => {
  const copied = fileURLToPath(new URL('../binding', import.meta.url))
  return existsSync(copied) ? copied : join(dirname(require.resolve('@tensorflow/tfjs-node-gpu/package.json')), 'binding')
}

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

/** The binding takes no lists of strings or of types, which fused ops need: `_FusedMatMul` has `fused_ops: list(string)`. */
export const withListAttributes = (source: string): string =>
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

const copySources = async (folder: string): Promise<void> => {
  await cp(sourceFolder(), folder, { recursive: true })
  const backend = join(folder, 'tfjs_backend.cc')
  await writeFile(backend, withListAttributes(await readFile(backend, 'utf8')))
}

const compileIssue =
  (compiler: Command, env: NodeJS.ProcessEnv) =>
  (failed: Failed): Issues => {
    const mend = installHint('compiler', env)
    const message = `${compiler.join(' ')} could not compile the addon (${complaint(failed)}); a compiler with C++17 comes with \`${mend}\``
    return [issue('CompileFailed', message, { mend })]
  }

/**
 * Compiles the addon of tfjs-node against the unpacked `<engine>/tensorflow`, to `<engine>/tfjs_binding.node`; `scratch` takes the
 * sources. The libraries are given by path, so no links with other names are needed.
 */
export const compileAddon = (
  compiler: Command,
  engine: string,
  scratch: string,
  libraries: readonly string[],
  options: RunOptions
): TE.TaskEither<Issues, string> => {
  const [sources, addon] = [join(scratch, 'binding'), join(engine, 'tfjs_binding.node')]
  const includes = [require('node-api-headers').include_dir as string, join(engine, 'tensorflow', 'include'), sources]
  const flags = ['-O2', '-std=c++17', '-fPIC', '-shared', '-DNAPI_VERSION=8', ...includes.map((path) => `-I${path}`)]
  const inputs = ['tfjs_backend.cc', 'tfjs_binding.cc'].map((name) => join(sources, name))
  const linked = libraries.map((name) => join(engine, 'tensorflow', name))
  return pipe(
    TE.fromTask(() => copySources(sources)),
    TE.chain(() => run(compiler, [...flags, ...inputs, ...linked, '-o', addon, ...rpath], options)),
    TE.bimap(compileIssue(compiler, options.env), () => addon)
  )
}

/** Loads the addon in a process of its own, so that what is published is known to run. */
export const tryAddon = (addon: string, options: RunOptions): TE.TaskEither<Issues, string> =>
  pipe(
    run([process.execPath], ['-p', `require(${JSON.stringify(addon)}).TF_Version`], {
      ...options,
      env: { ...options.env, TF_CPP_MIN_LOG_LEVEL: '3', NODE_OPTIONS: '' }
    }),
    TE.bimap(
      (failed): Issues => [issue('BrokenEngine', `the compiled addon does not load (${complaint(failed)})`, { path: addon })],
      (version) => version.trim()
    )
  )
