import { access, constants } from 'node:fs/promises'
import { availableParallelism, cpus, freemem, totalmem } from 'node:os'
import { dirname, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue } from '../error.js'
import { usesTensorflowOps } from '../ops/kernel.js'
import type { Engine, Loaders } from './engine.js'
import { describeGpu, findGpus } from './gpus.js'
import { kernelsLibrary } from './install/compile-kernels.js'
import { cacheFolder, enginesFolder, folderBytes, verifyEngine } from './install/engine-folder.js'
import { planSetup } from './install/setup-plan.js'
import { findToolchain } from './install/toolchain.js'
import { type GemmChoice, gemmChoices } from './kernels/gemm-choice.js'
import { kernelsInUse } from './kernels/register.js'
import { loaders as engineLoaders } from './loaders.js'
import { cpuFlags, thisGpuChoice, thisMachine } from './machine.js'
import { chooseEngine } from './select.js'

/** The oldest supported Node; equal to `engines` in package.json. */
export const oldestNode = [20, 19] as const

/** The engine, the machine that it runs on, and everything that is wrong. */
export interface Diagnosis {
  readonly engine: Engine | null
  readonly native: {
    readonly state: 'intact' | 'missing' | 'damaged' | 'unsupported'
    readonly variant: string | null
    readonly folder: string | null
  }
  /** Names of the registered kernels of this library: the native engine's, on the CPU. */
  readonly kernels: readonly string[]
  /** Whether the kernels are TensorFlow's own ops, as on a GPU. */
  readonly usesTensorflowOps: boolean
  /** Arithmetic of matrix products with many rows, for each format of weights, and the measured speeds. */
  readonly gemm: readonly GemmChoice[]
  readonly node: { readonly version: string; readonly supported: boolean }
  readonly cpu: { readonly model: string; readonly cores: number; readonly features: readonly string[] }
  readonly threads: { readonly intraOp: string; readonly openMp: string }
  /** Name, memory, driver and compute capability of each NVIDIA GPU that the driver lists. */
  readonly gpus: readonly string[]
  /** The build of TensorFlow that is chosen for the GPUs, and why. */
  readonly gpuChoice: string
  /** Bytes. */
  readonly memory: { readonly total: number; readonly free: number }
  readonly cache: { readonly folder: string; readonly bytes: number; readonly writable: boolean }
  /** Everything that is wrong; the field `fix` of an issue is one shell command that repairs it. */
  readonly issues: readonly Issue[]
}

const reportedFeatures = [
  'avx2',
  'fma',
  'avx512f',
  'avx512_vnni',
  'avx512_bf16',
  'amx_tile',
  'amx_bf16',
  'amx_int8',
  'asimd',
  'asimddp',
  'bf16',
  'i8mm'
]

/** Whether a version of Node is supported: `v20.19.0` or later. */
export const isSupportedNode = (version: string): boolean => {
  const [major = 0, minor = 0] = version.replace(/^v/, '').split('.').map(Number)
  return major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1])
}

type Native = Diagnosis['native']

/** State and issues of the best native engine for this machine. An unsupported platform has issues without a fix. */
const examineNative = async (env: NodeJS.ProcessEnv, hash: boolean): Promise<readonly [Native, readonly Issue[]]> => {
  const plan = planSetup(thisMachine(env))
  if (E.isLeft(plan)) return [{ state: 'unsupported', variant: null, folder: null }, plan.left]
  const { variant } = plan.right
  const folder = join(enginesFolder(env), plan.right.folder)
  const verified = await verifyEngine(folder, { hash })
  if (E.isRight(verified)) return [{ state: 'intact', variant, folder }, []]
  const missingTools = E.match(
    (issues: Issues): readonly Issue[] => issues,
    () => []
  )(await findToolchain(env)())
  const state = verified.left[0]._tag === 'NotSetUp' ? 'missing' : 'damaged'
  return [{ state, variant, folder }, [...missingTools, ...verified.left]]
}

/** Whether a folder can be written or, if it does not exist, created. */
const isWritable = async (folder: string): Promise<boolean> => {
  const code = await access(folder, constants.W_OK).catch((error: NodeJS.ErrnoException) => error.code ?? '')
  return code === undefined || (code === 'ENOENT' && folder !== dirname(folder) && isWritable(dirname(folder)))
}

const environmentIssue = (tag: string, problem: string, fix: string): Issue => issue(tag, `${problem} \`${fix}\``, { fix })

/** Issues of Node, the cache folder and the GPU. */
export const environmentIssues = ({ node, cache, engine, native }: Omit<Diagnosis, 'issues'>): readonly Issue[] => {
  const oldNode = `Node ${node.version} is older than ${oldestNode.join('.')}; install a newer one with`
  const unwritable = `${cache.folder}: cannot be written; name another folder, as in`
  const idleGpu = 'the CUDA build is installed, but TensorFlow found no GPU; check the driver with'
  const isIdle = engine?.name === 'native' && native.variant === 'cuda' && !engine.devices.includes('GPU')
  return [
    ...(node.supported ? [] : [environmentIssue('OldNode', oldNode, 'nvm install 22')]),
    ...(cache.writable ? [] : [environmentIssue('CacheNotWritable', unwritable, 'export INTERNVL_CACHE="$HOME/internvl-cache"')]),
    ...(isIdle ? [environmentIssue('IdleGpu', idleGpu, 'nvidia-smi')] : [])
  ]
}

/** Distinct issues that a command can fix. For a forced native engine, the default fix is to unset the variable. */
const fixable = (issues: readonly Issue[], requested: string | undefined): readonly Issue[] => {
  const unique = [...new Map(issues.map((issue) => [issue.message, issue])).values()]
  const withFix = requested === 'native' ? unique.map((issue) => ({ fix: 'unset INTERNVL_ENGINE', ...issue }) as Issue) : unique
  return withFix.filter(({ fix }) => fix !== undefined)
}

export interface DoctorOptions {
  readonly env?: NodeJS.ProcessEnv
  /** Checks the native engine's files by SHA-256 (the default), which takes seconds, or only by size and stamp. */
  readonly verify?: boolean
  /** Loaders of the engines; tests replace them. */
  readonly loaders?: Loaders
}

/** Examines the engines and the machine. It changes nothing. */
export const diagnose = async ({
  env = process.env,
  verify = true,
  loaders = engineLoaders
}: DoctorOptions = {}): Promise<Diagnosis> => {
  const requested = env.INTERNVL_ENGINE || undefined
  const skipsNative = requested === 'wasm' || requested === 'cpu'
  const [native, nativeIssues] = await examineNative(env, verify && !skipsNative)
  const chosen = await chooseEngine(loaders)(requested)
  const [cpu] = cpus()
  const flags = cpuFlags()
  const folder = cacheFolder(env)
  const facts = {
    engine: E.isRight(chosen) ? chosen.right : null,
    native,
    kernels: kernelsInUse(),
    usesTensorflowOps: usesTensorflowOps(),
    gemm: gemmChoices(kernelsLibrary(env)),
    node: { version: process.version, supported: isSupportedNode(process.version) },
    cpu: {
      model: cpu?.model ?? 'unknown',
      cores: availableParallelism(),
      features: reportedFeatures.filter((name) => flags.has(name))
    },
    threads: { intraOp: env.TF_NUM_INTRAOP_THREADS ?? 'all cores', openMp: env.OMP_NUM_THREADS ?? 'all cores' },
    gpus: findGpus().map(describeGpu),
    gpuChoice: thisGpuChoice(env),
    memory: { total: totalmem(), free: freemem() },
    cache: { folder, bytes: await folderBytes(folder), writable: await isWritable(folder) }
  }
  const engineIssues = E.isLeft(chosen) ? chosen.left : [...chosen.right.unavailable, ...(chosen.right.issues ?? [])]
  const relevant = skipsNative ? engineIssues : [...nativeIssues, ...engineIssues]
  return { ...facts, issues: [...fixable(relevant, requested), ...environmentIssues(facts)] }
}
