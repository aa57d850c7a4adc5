import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { arch } from 'node:os'
import { gpuChoice } from './device.js'
import { findGpus } from './gpus.js'
import { hasCudaBuild, type Machine } from './install/setup-plan.js'

/** Node's platform and architecture, `linux-x64`; with `-musl` where the C library is musl, which TensorFlow's wheels do not support. */
const platformName = (): string => {
  const musl = process.platform === 'linux' && existsSync(`/lib/ld-musl-${arch() === 'x64' ? 'x86_64' : 'aarch64'}.so.1`)
  const glibc = existsSync('/lib64/ld-linux-x86-64.so.2') || existsSync('/lib/ld-linux-aarch64.so.1')
  return `${process.platform}-${process.arch}${musl && !glibc ? '-musl' : ''}`
}

/** The processor's feature flags: `avx2`, `avx512f`, `amx_bf16`, … Empty where the system does not report the flags. */
export const cpuFlags = (): ReadonlySet<string> => {
  try {
    if (process.platform === 'darwin') {
      const { stdout } = spawnSync('sysctl', ['-n', 'machdep.cpu.features', 'machdep.cpu.leaf7_features'], { encoding: 'utf8' })
      return new Set((stdout ?? '').toLowerCase().split(/\s+/).filter(Boolean))
    }
    const line = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'latin1'))
    return new Set((line?.[1] ?? '').trim().split(/\s+/).filter(Boolean))
  } catch {
    return new Set()
  }
}

/** Whether an NVIDIA driver is loaded. */
export const hasDriver = (): boolean => existsSync('/proc/driver/nvidia/version') || existsSync('/dev/nvidia0')

/** Whether the machine has an NVIDIA GPU. `CUDA_VISIBLE_DEVICES=-1` hides the GPU here as in TensorFlow, and `INTERNVL_DEVICE=cpu`. */
export const hasGpu = (env: NodeJS.ProcessEnv = process.env): boolean => {
  const visible = env.CUDA_VISIBLE_DEVICES
  if (visible === '' || visible?.startsWith('-1') || env.INTERNVL_DEVICE === 'cpu') return false
  return hasDriver() || findGpus().length > 0
}

/** One sentence on the GPUs of this machine, and the build of TensorFlow that is chosen for them. */
export const thisGpuChoice = (env: NodeJS.ProcessEnv = process.env): string => {
  const platform = platformName()
  return gpuChoice({ platform, hasCudaBuild: hasCudaBuild(platform), hasDriver: hasDriver(), gpus: findGpus(), env })
}

/** The facts about this machine that decide which build it gets. */
export const thisMachine = (env: NodeJS.ProcessEnv = process.env): Machine => ({
  platform: platformName(),
  hasGpu: env.INTERNVL_CUDA ? env.INTERNVL_CUDA === '1' : hasGpu(env),
  hasAvx: process.arch !== 'x64' || process.platform !== 'linux' || cpuFlags().has('avx'),
  cuda: env.INTERNVL_CUDA
})
