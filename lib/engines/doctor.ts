import { access, constants } from 'node:fs/promises'
import { availableParallelism, cpus, freemem, totalmem } from 'node:os'
import { dirname, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { type Issue, issue } from '../error.js'
import type { Engine, Loaders } from './engine.js'
import { cacheFolder, enginesFolder, folderBytes, verifyEngine } from './install/engine-folder.js'
import { planSetup } from './install/setup-plan.js'
import { findToolchain } from './install/toolchain.js'
import { kernelsInUse } from './kernels/register.js'
import { loaders as engineLoaders } from './loaders.js'
import { cpuFlags, gpuNames, thisMachine } from './machine.js'
import { chooseEngine } from './select.js'

/** The oldest Node that the package supports; package.json says the same under `engines`. */
export const oldestNode = [20, 19] as const

/** All that is known of what the library runs on. */
export interface Diagnosis {
  readonly engine: Engine | null
  readonly native: {
    readonly state: 'whole' | 'missing' | 'damaged' | 'unsupported'
    readonly variant: string | null
    readonly folder: string | null
  }
  /** Names of our own kernels that are in use: the native engine's, on the CPU. */
  readonly kernels: readonly string[]
  readonly node: { readonly version: string; readonly supported: boolean }
  readonly cpu: { readonly model: string; readonly cores: number; readonly features: readonly string[] }
  readonly threads: { readonly intraOp: string; readonly openMp: string }
  readonly gpus: readonly string[]
  /** Bytes. */
  readonly memory: { readonly total: number; readonly free: number }
  readonly cache: { readonly folder: string; readonly bytes: number; readonly writable: boolean }
  /** What is wrong, each with `mend`, the one command that mends it. */
  readonly issues: readonly Issue[]
}

const features = [
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

/** Whether a version of Node is supported: `v20.19.0` and later. */
export const isSupportedNode = (version: string): boolean => {
  const [major = 0, minor = 0] = version.replace(/^v/, '').split('.').map(Number)
  return major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1])
}

type Native = Diagnosis['native']

/** The engine folder that fits this machine best, and what is wrong with it. No command changes the platform: that is no error. */
const examineNative = async (env: NodeJS.ProcessEnv, hash: boolean): Promise<readonly [Native, readonly Issue[]]> => {
  const plan = planSetup(thisMachine(env))
  if (E.isLeft(plan)) return [{ state: 'unsupported', variant: null, folder: null }, plan.left]
  const { variant } = plan.right
  const folder = join(enginesFolder(env), plan.right.folder)
  const verified = await verifyEngine(folder, { hash })
  if (E.isRight(verified)) return [{ state: 'whole', variant, folder }, []]
  const tools = await findToolchain(env)()
  const state = verified.left[0]._tag === 'NotSetUp' ? 'missing' : 'damaged'
  return [{ state, variant, folder }, [...(E.isLeft(tools) ? tools.left : []), ...verified.left]]
}

/** Whether a folder can be written, or made where it is not yet. */
const isWritable = async (folder: string): Promise<boolean> => {
  const reached = await access(folder, constants.W_OK).catch((error: NodeJS.ErrnoException) => error.code ?? '')
  return reached === undefined || (reached === 'ENOENT' && folder !== dirname(folder) && isWritable(dirname(folder)))
}

/** What is wrong beside the engines' own errors. */
export const otherIssues = ({ node, cache, engine, native }: Omit<Diagnosis, 'issues'>): readonly Issue[] => {
  const issues: Issue[] = []
  const add = (tag: string, what: string, mend: string): void => void issues.push(issue(tag, `${what} \`${mend}\``, { mend }))
  if (!node.supported)
    add('OldNode', `Node ${node.version} is older than ${oldestNode.join('.')}; install a newer one with`, 'nvm install 22')
  if (!cache.writable)
    add(
      'CacheNotWritable',
      `${cache.folder}: cannot be written; name another folder, as in`,
      'export INTERNVL_CACHE="$HOME/internvl-cache"'
    )
  if (engine?.name === 'native' && native.variant === 'cuda' && !engine.devices.includes('GPU'))
    add('IdleGpu', 'the CUDA build is set up, but TensorFlow found no GPU; look at the driver with', 'nvidia-smi')
  return issues
}

const mendable = (issues: readonly Issue[], asked: string | undefined): readonly Issue[] => {
  const unique = [...new Map(issues.map((each) => [each.message, each])).values()]
  const named = asked === 'native' ? unique.map((each) => ({ mend: 'unset INTERNVL_ENGINE', ...each }) as Issue) : unique
  return named.filter(({ mend }) => mend !== undefined)
}

export interface DoctorOptions {
  readonly env?: NodeJS.ProcessEnv
  /** Checks the engine's files by their hashes, not only their sizes. */
  readonly verify?: boolean
  /** How the engines are loaded; a test gives others. */
  readonly loaders?: Loaders
}

/** Looks at the engines and at what they run on. It changes nothing. */
export const diagnose = async ({
  env = process.env,
  verify = false,
  loaders = engineLoaders
}: DoctorOptions = {}): Promise<Diagnosis> => {
  const asked = env.INTERNVL_ENGINE || undefined
  const [native, nativeIssues] = await examineNative(env, verify)
  const chosen = await chooseEngine(loaders)(asked)
  const [cpu] = cpus()
  const flags = cpuFlags()
  const folder = cacheFolder(env)
  const facts = {
    engine: E.isRight(chosen) ? chosen.right : null,
    native,
    kernels: kernelsInUse(),
    node: { version: process.version, supported: isSupportedNode(process.version) },
    cpu: { model: cpu?.model ?? 'unknown', cores: availableParallelism(), features: features.filter((name) => flags.has(name)) },
    threads: { intraOp: env.TF_NUM_INTRAOP_THREADS ?? 'all cores', openMp: env.OMP_NUM_THREADS ?? 'all cores' },
    gpus: gpuNames(),
    memory: { total: totalmem(), free: freemem() },
    cache: { folder, bytes: await folderBytes(folder), writable: await isWritable(folder) }
  }
  const engineIssues = E.isLeft(chosen) ? chosen.left : [...chosen.right.refused, ...(chosen.right.issues ?? [])]
  const cared = asked === 'wasm' || asked === 'cpu' ? engineIssues : [...nativeIssues, ...engineIssues]
  return { ...facts, issues: [...mendable(cared, asked), ...otherIssues(facts)] }
}
