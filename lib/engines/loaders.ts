import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue } from '../error.js'
import { tf } from '../tf.js'
import type { Loaded, Loaders } from './engine.js'
import { kernelsIssue, kernelsLibrary } from './install/compile-kernels.js'
import { enginesFolder, verifyEngine } from './install/engine-folder.js'
import { mendHint } from './install/hints.js'
import { usablePlans } from './install/setup-plan.js'
import { loadKernels } from './kernels/register.js'
import { thisMachine } from './machine.js'
import { loadNative, nativeBackend } from './native.js'
import { loadCpu, loadWasm } from './wasm.js'
import { loadWasmKernels } from './wasm-kernels/register.js'

/** The engine folder that this machine would run from: the first whole one of its plans, else what is wrong with the best. */
export const installedFolder = async (env: NodeJS.ProcessEnv = process.env): Promise<E.Either<Issues, string>> => {
  const plans = usablePlans(thisMachine(env))
  if (E.isLeft(plans)) return plans
  const folders = plans.right.map((plan) => join(enginesFolder(env), plan.folder))
  const verified = await Promise.all(folders.map((folder) => verifyEngine(folder)))
  const whole = verified.findIndex(E.isRight)
  return whole < 0 ? (verified[0] as E.Left<Issues>) : E.right(folders[whole] as string)
}

const broken =
  (engine: string, mend: string) =>
  (error: unknown): Issues => {
    const [reason] = String(error instanceof Error ? error.message : error).split('\n')
    return [issue('BrokenEngine', `the ${engine} engine does not load (${reason}); mend it with \`${mend}\``, { engine, mend })]
  }

/** Our own kernels beside TensorFlow's, on the CPU; `INTERNVL_KERNELS=0` does without. What keeps them out, if anything. */
const addKernels = (devices: readonly string[], env: NodeJS.ProcessEnv = process.env): readonly Issue[] => {
  const ops = nativeBackend()
  if (!ops || devices.includes('GPU') || env.INTERNVL_KERNELS === '0') return []
  const library = kernelsLibrary(env)
  const loaded = E.tryCatch(() => loadKernels(library, ops), broken('kernels', mendHint))
  if (E.isLeft(loaded)) return loaded.left
  return loaded.right ? [] : kernelsIssue(library)
}

const native = async (): Promise<E.Either<Issues, Loaded>> => {
  const folder = await installedFolder()
  if (E.isLeft(folder)) return folder
  const load = E.tryCatch(() => loadNative(folder.right), broken('native', mendHint))
  if (E.isLeft(load)) return load
  await tf.setBackend('tensorflow')
  return E.right({ ...load.right, issues: addKernels(load.right.devices) })
}

const wasm = async (): Promise<E.Either<Issues, Loaded>> =>
  loadWasm().then(
    (version) => {
      if (process.env.INTERNVL_KERNELS !== '0') loadWasmKernels()
      return E.right({ version, devices: ['CPU'] })
    },
    (error) => E.left(broken('wasm', 'npm install')(error))
  )

const cpu = async (): Promise<E.Either<Issues, Loaded>> => {
  const version = loadCpu()
  await tf.setBackend('cpu')
  return E.right({ version, devices: ['CPU'] })
}

/** The three engines. */
export const loaders: Loaders = { native, wasm, cpu }
