import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { arch } from 'node:os'
import type { Machine } from './install/setup-plan.js'

/** Node's platform and processor; `-musl` where the C library is not the one that the wheels are built for. */
export const platformName = (): string => {
  const musl = process.platform === 'linux' && existsSync(`/lib/ld-musl-${arch() === 'x64' ? 'x86_64' : 'aarch64'}.so.1`)
  const glibc = existsSync('/lib64/ld-linux-x86-64.so.2') || existsSync('/lib/ld-linux-aarch64.so.1')
  return `${process.platform}-${process.arch}${musl && !glibc ? '-musl' : ''}`
}

/** The processor's feature flags: `avx2`, `avx512f`, `amx_bf16`, … Empty where the system does not say. */
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

/** Names of the NVIDIA GPUs, as the driver's tool says them. */
export const gpuNames = (): readonly string[] => {
  const asked = spawnSync('nvidia-smi', ['--query-gpu=name', '--format=csv,noheader'], { encoding: 'utf8', timeout: 20_000 })
  return asked.status === 0 ? asked.stdout.split('\n').filter((line) => line.trim() !== '') : []
}

/** Whether an NVIDIA GPU is at hand; `CUDA_VISIBLE_DEVICES=-1` hides it, as it does from TensorFlow. */
export const hasGpu = (env: NodeJS.ProcessEnv = process.env): boolean => {
  const visible = env.CUDA_VISIBLE_DEVICES
  if (visible === '' || visible?.startsWith('-1')) return false
  return existsSync('/proc/driver/nvidia/version') || existsSync('/dev/nvidia0') || gpuNames().length > 0
}

/** This machine, as far as the choice of a build asks. */
export const thisMachine = (env: NodeJS.ProcessEnv = process.env): Machine => ({
  platform: platformName(),
  hasGpu: env.INTERNVL_CUDA ? env.INTERNVL_CUDA === '1' : hasGpu(env),
  hasAvx: process.arch !== 'x64' || process.platform !== 'linux' || cpuFlags().has('avx'),
  cuda: env.INTERNVL_CUDA
})
