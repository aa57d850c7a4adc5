import { valueText } from '../error.js'
import type { Gpu } from './gpus.js'

/** The device that computes: the index of an NVIDIA GPU among the visible ones, from 0, or the CPU. */
export type Device = number | 'cpu'

/** Indices of the GPUs that `CUDA_VISIBLE_DEVICES` lists, or undefined if it is not set. As in CUDA the list ends before the first negative. */
const visibleList = ({ CUDA_VISIBLE_DEVICES: text }: NodeJS.ProcessEnv): readonly string[] | undefined => {
  if (text === undefined) return undefined
  const names = text.split(',').map((name) => name.trim())
  const end = names.findIndex((name) => name === '' || name.startsWith('-'))
  return end < 0 ? names : names.slice(0, end)
}

/** Parses `cpu` or the index of a GPU. Throws a `RangeError` that names the setting for any other text. */
export const deviceOf = (setting: string, value: unknown): Device => {
  if (value === 'cpu') return value
  const index = typeof value === 'string' && /^\d+$/.test(value.trim()) ? Number(value) : value
  if (typeof index === 'number' && Number.isSafeInteger(index) && index >= 0) return index
  throw new RangeError(`${setting}: expected the index of a GPU from 0, or cpu, got ${valueText(value)}`)
}

/**
 * The environment variables with which this process and those that it starts see one device alone, which then has index 0. Indices count in the list of `CUDA_VISIBLE_DEVICES` where that is set, as in
 * PyTorch, else in the order of nvidia-smi. Throws a `RangeError` if the list is shorter.
 */
export const deviceVariables = (device: Device, env: NodeJS.ProcessEnv): NodeJS.ProcessEnv => {
  if (device === 'cpu') return { CUDA_VISIBLE_DEVICES: '-1', INTERNVL_DEVICE: 'cpu' }
  const list = visibleList(env)
  if (!list) return { CUDA_VISIBLE_DEVICES: String(device), CUDA_DEVICE_ORDER: 'PCI_BUS_ID', INTERNVL_DEVICE: '0' }
  const name = list[device]
  if (name !== undefined) return { CUDA_VISIBLE_DEVICES: name, INTERNVL_DEVICE: '0' }
  throw new RangeError(
    `device ${device}: CUDA_VISIBLE_DEVICES=${env.CUDA_VISIBLE_DEVICES} lists ${list.length} GPUs; the index is below that, or unset the variable`
  )
}

/** The GPUs of nvidia-smi that CUDA sees; all of them if the list names GPUs by UUID. */
export const visibleGpus = (gpus: readonly Gpu[], env: NodeJS.ProcessEnv): readonly Gpu[] => {
  const list = visibleList(env)
  if (!list?.every((name) => /^\d+$/.test(name))) return gpus
  return list.flatMap((name) => gpus.find(({ index }) => index === Number(name)) ?? [])
}

/** The type of products in 16 bits on a GPU: tensor cores multiply bfloat16 from compute capability 8.0 (Ampere) on. */
export const halfTypeOf = (gpu: Pick<Gpu, 'computeCapability'> | undefined): 'bfloat16' | 'float16' =>
  gpu && Number(gpu.computeCapability) < 8 ? 'float16' : 'bfloat16'

/** The facts that decide between the build for CUDA and that for a CPU. */
export interface GpuFacts {
  /** `linux-x64`, … */
  readonly platform: string
  /** Whether TensorFlow publishes a CUDA build for the platform. */
  readonly hasCudaBuild: boolean
  readonly hasDriver: boolean
  /** All cards that the driver lists. */
  readonly gpus: readonly Gpu[]
  readonly env: NodeJS.ProcessEnv
}

/** One sentence: the GPUs and the build that is chosen for them, or the reason for the CPU's build. */
export const gpuChoice = ({ platform, hasCudaBuild, hasDriver, gpus, env }: GpuFacts): string => {
  const visible = visibleGpus(gpus, env)
  const names = visible.map(({ index, name }) => `${name} (${index})`).join(', ')
  const cpu = 'the build for a CPU'
  if (!hasCudaBuild) return `${cpu}: TensorFlow has no CUDA build for ${platform}`
  if (env.INTERNVL_DEVICE === 'cpu') return `${cpu}: it is the requested device`
  if (env.INTERNVL_CUDA === '0') return `${cpu}: INTERNVL_CUDA=0`
  if (env.INTERNVL_CUDA === '1') return `the CUDA build: INTERNVL_CUDA=1${names ? `; ${names}` : ', though no GPU was found'}`
  if (visibleList(env)?.length === 0) return `${cpu}: CUDA_VISIBLE_DEVICES=${env.CUDA_VISIBLE_DEVICES} hides every GPU`
  if (!hasDriver && gpus.length === 0) return `${cpu}: no NVIDIA driver was found (nvidia-smi)`
  if (names) return `the CUDA build: ${names}`
  return gpus.length === 0
    ? 'the CUDA build: an NVIDIA driver was found, but nvidia-smi lists no card'
    : `the CUDA build: CUDA_VISIBLE_DEVICES=${env.CUDA_VISIBLE_DEVICES} names none of the cards ${gpus.map(({ index }) => index).join(', ')}`
}
