import { existsSync } from 'node:fs'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue } from '../error.js'
import { tf } from '../tf.js'
import { halfTypeOf, visibleGpus } from './device.js'
import type { LoadedEngine, Loaders } from './engine.js'
import { findGpus } from './gpus.js'
import { kernelsIssue, kernelsLibrary } from './install/compile-kernels.js'
import { enginesFolder, verifyEngine } from './install/engine-folder.js'
import { verifyRecordedHash } from './install/file-trust.js'
import { forceSetupHint } from './install/hints.js'
import { usablePlans } from './install/setup-plan.js'
import { chooseGemmKinds } from './kernels/gemm-choice.js'
import { loadKernels } from './kernels/register.js'
import { thisMachine } from './machine.js'
import { loadNative, type NativeBackend, nativeBackend } from './native.js'
import { useHalfType } from './tensorflow-kernels/compute-type.js'
import { registerTensorflowKernels } from './tensorflow-kernels/register-tensorflow-kernels.js'
import { loadCpu, loadWasm } from './wasm.js'
import { loadWasmKernels } from './wasm-kernels/register-wasm-kernels.js'

/** The first intact engine folder of the builds that this machine can run, else the issues of the best build. */
export const installedFolder = async (env: NodeJS.ProcessEnv = process.env): Promise<E.Either<Issues, string>> => {
  const plans = usablePlans(thisMachine(env))
  if (E.isLeft(plans)) return plans
  const [best, ...others] = plans.right.map(({ folder }) => {
    const path = join(enginesFolder(env), folder)
    return pipe(
      () => verifyEngine(path),
      TE.map(() => path)
    )
  })
  const first = await (best as TE.TaskEither<Issues, string>)()
  if (E.isRight(first)) return first
  for (const other of others) {
    const found = await other()
    if (E.isRight(found)) return found
  }
  return first
}

const loadIssue =
  (engine: string, fix: string) =>
  (error: unknown): Issues => {
    const [reason] = String(error instanceof Error ? error.message : error).split('\n')
    return [issue('BrokenEngine', `the ${engine} engine does not load (${reason}); repair with \`${fix}\``, { engine, fix })]
  }

/** Loads the verified kernels library. Left where a kernel is missing or the library does not load. */
const loadVerified = (library: string, ops: NativeBackend): E.Either<Issues, void> =>
  pipe(
    E.tryCatch(() => loadKernels(library, ops), loadIssue('kernels', forceSetupHint)),
    E.filterOrElse(
      (loaded) => loaded,
      () => kernelsIssue(library)
    ),
    E.map(() => undefined)
  )

/** Values of `INTERNVL_KERNELS`. */
const kernelSets: readonly string[] = ['0', 'tensorflow']

/**
 * Registers kernels: the compiled ones of this library on the CPU; compositions of TensorFlow's ops on a GPU and with
 * `INTERNVL_KERNELS=tensorflow`; none with `INTERNVL_KERNELS=0`. Returns the issues that prevent it.
 */
const addKernels = async (devices: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<readonly Issue[]> => {
  const ops = nativeBackend()
  const set = env.INTERNVL_KERNELS || undefined
  if (set !== undefined && !kernelSets.includes(set)) {
    const message = `INTERNVL_KERNELS=${set}: expected ${kernelSets.join(' or ')}, or no value for the kernels of this library`
    return [issue('UnknownKernel', message, { expected: kernelSets, actual: set, fix: 'unset INTERNVL_KERNELS' })]
  }
  if (!ops || set === '0') return []
  if (devices.includes('GPU') || set === 'tensorflow') {
    if (devices.includes('GPU')) useHalfType(halfTypeOf(visibleGpus(findGpus(), env).at(-1))) // the last one runs
    registerTensorflowKernels(ops)
    return []
  }
  const library = kernelsLibrary(env)
  if (!existsSync(library)) return kernelsIssue(library)
  const loaded = pipe(
    await verifyRecordedHash(library),
    E.chain((verified) => loadVerified(verified, ops))
  )
  return E.isLeft(loaded) ? loaded.left : chooseGemmKinds(library, env)
}

const native = async (): Promise<E.Either<Issues, LoadedEngine>> => {
  const folder = await installedFolder()
  const loaded = pipe(
    folder,
    E.chain((path) => E.tryCatch(() => loadNative(path), loadIssue('native', forceSetupHint)))
  )
  if (E.isLeft(loaded)) return loaded
  await tf.setBackend('tensorflow')
  return E.right({ ...loaded.right, issues: await addKernels(loaded.right.devices) })
}

const wasm = (): Promise<E.Either<Issues, LoadedEngine>> =>
  pipe(
    TE.tryCatch(loadWasm, loadIssue('wasm', 'npm install')),
    TE.map((version) => {
      if (process.env.INTERNVL_KERNELS !== '0') loadWasmKernels()
      return { version, devices: ['CPU'] }
    })
  )()

const cpu = async (): Promise<E.Either<Issues, LoadedEngine>> => {
  const version = loadCpu()
  await tf.setBackend('cpu')
  return E.right({ version, devices: ['CPU'] })
}

/** The loaders of the three engines. */
export const loaders: Loaders = { native, wasm, cpu }
