import { spawnSync } from 'node:child_process'

/** An NVIDIA GPU as its driver describes it. */
export interface Gpu {
  readonly index: number
  readonly name: string
  readonly driver: string
  /** MiB. */
  readonly memory: number
  /** MiB, of all processes. */
  readonly usedMemory: number
  /** `8.9`; bfloat16 products need 8.0. */
  readonly computeCapability: string
}

const fields = ['index', 'name', 'driver_version', 'memory.total', 'memory.used', 'compute_cap'] as const

/** GPUs in the output of `nvidia-smi` for `fields`; lines that do not have them are left out. */
export const parseGpus = (text: string): readonly Gpu[] =>
  text.split('\n').flatMap((line) => {
    const values = line.split(',').map((value) => value.trim())
    if (values.length !== fields.length) return []
    const [index, name, driver, memory, usedMemory, computeCapability] = values as [
      string,
      string,
      string,
      string,
      string,
      string
    ]
    return [{ index: Number(index), name, driver, memory: Number(memory), usedMemory: Number(usedMemory), computeCapability }]
  })

/** The NVIDIA GPUs of this machine, from `nvidia-smi`; none without a driver. */
export const findGpus = (): readonly Gpu[] => {
  const args = [`--query-gpu=${fields.join(',')}`, '--format=csv,noheader,nounits']
  const query = spawnSync('nvidia-smi', args, { encoding: 'utf8', timeout: 20_000 })
  return query.status === 0 ? parseGpus(query.stdout) : []
}

/** `NVIDIA L4, 22.5 GB, driver 550.54.15, compute capability 8.9` */
export const describeGpu = ({ name, memory, driver, computeCapability }: Gpu): string =>
  `${name}, ${((memory * 2 ** 20) / 1e9).toFixed(1)} GB, driver ${driver}, compute capability ${computeCapability}`
