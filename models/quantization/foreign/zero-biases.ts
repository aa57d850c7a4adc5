import { toFloat32 } from '../../../lib/dtype.js'
import type { Module } from '../../../lib/module.js'
import { declarations } from '../../../lib/params.js'
import type { TensorFiles } from '../../../lib/safetensors/read.js'
import type { Planned } from '../../checkpoint/fuse.js'

/**
 * The plan without biases of zeros that the module does not declare: AutoGPTQ stores one for every quantized layer. Other biases stay,
 * for the comparison with the module to report.
 */
export const withoutZeroBiases = async (
  files: TensorFiles,
  plan: readonly Planned[],
  module: Module
): Promise<readonly Planned[]> => {
  const declared = new Set(declarations(module).map(([path]) => path))
  const isZero = async ({ parts }: Planned): Promise<boolean> => {
    for (const { source } of parts) {
      const entry = files.entries.get(source)!
      if (toFloat32(await files.readBytes(entry), entry.dtype).some((x) => x !== 0)) return false
    }
    return true
  }
  const isNeeded = await Promise.all(
    plan.map(async (planned) => !planned.key.endsWith('.bias') || declared.has(planned.key) || !(await isZero(planned)))
  )
  return plan.filter((_, i) => isNeeded[i])
}
