import { join } from 'node:path'
import { type InternVLCheckpoint, type LoadOptions, load } from '../../generation/checkpoint/load.js'
import { usesTensorflowOps } from '../../lib/ops/kernel.js'
import { tf } from '../../lib/tf.js'
import type { KVCache } from '../../models/decoders/decoder.js'
import { type PrecisionName, precisions } from '../bench/measure/precisions.js'
import { relativeL2 } from '../bench/quality/quality.js'
import type { Case } from './case.js'
import { type Check, expectThat } from './outcome.js'
import { asReferenced, layoutsOf, readInputs, type StoredInput, storedInputs } from './reference-inputs.js'

/** Tolerance of logits, `‖difference‖ / ‖logits‖`. In bfloat16 a token of the GPT-OSS case changes its expert, in PyTorch too. */
export const tolerances = { bfloat16: 0.03, float16: 0.005, int8: 0.02, int4: 0.1 } as const satisfies Partial<
  Record<PrecisionName | 'float16', number>
>
export type CoarsePrecision = keyof typeof tolerances

/** The tolerance of a precision with the kernels in use: TensorFlow's ops in bfloat16 round more than the compiled kernels, 3.12 % at most. */
const toleranceOf = (precision: CoarsePrecision): number =>
  precision === 'bfloat16' && usesTensorflowOps() ? 0.035 : tolerances[precision]

/** `float16`: weights and products in float16, on TensorFlow's ops alone. */
const options: Readonly<Record<CoarsePrecision, LoadOptions>> = {
  ...precisions,
  float16: { dtype: 'float16' }
}

/** Number of final tokens that are fed one at a time, so that the GEMV kernels of quantized weights are checked too. */
const steps = 4

const dataOf = (t: tf.Tensor): Float32Array => t.dataSync() as Float32Array

/** Logits `[B, L, V]`: a prefill without the last tokens, then the last tokens one at a time with a KV cache. */
const stepped = ({ model }: InternVLCheckpoint, { stored, rope }: StoredInput): tf.Tensor3D => {
  const { inputIds, attentionMask, pixelValues } = storedInputs(stored)
  const L = inputIds.shape[1]
  const ends = Array.from({ length: steps + 1 }, (_, i) => L - steps + i)
  let cache: KVCache | undefined
  const pieces = ends.map((end, i) => {
    const ids = inputIds.slice([0, ends[i - 1] ?? 0], [-1, end - (ends[i - 1] ?? 0)])
    const mask = attentionMask.slice([0, 0], [-1, end])
    const inputs = { inputIds: ids, ...(i === 0 ? { pixelValues } : {}) }
    const out = model(inputs, { attentionMask: mask, cache, useCache: true, ropeLength: rope?.forward })
    cache = out.cache
    return out.logits
  })
  return tf.concat(pieces, 1)
}

/** Rows of logits, with padding rows empty. */
const unpaddedRows = (logits: Float32Array, mask: Float32Array): readonly Float32Array[] => {
  const width = logits.length / mask.length
  return Array.from(mask, (is, i) => (is ? logits.subarray(i * width, (i + 1) * width) : new Float32Array(0)))
}

const inputCheck = (name: string, internvl: InternVLCheckpoint, one: StoredInput, most: number): Check => {
  const [expected, mask] = [one.stored.get('logits')!.values, one.stored.get('attention_mask')!.values]
  const distance = tf.tidy(() => relativeL2(unpaddedRows(dataOf(stepped(internvl, one)), mask), unpaddedRows(expected, mask)))
  const percent = (x: number) => `${(100 * x).toFixed(2)} %`
  return {
    name,
    outcome: expectThat(distance <= most, () => `${percent(distance)} from the reference, at most ${percent(most)}`),
    distance
  }
}

/** Checks of a case with quantized weights: the distance of every input's logits from the reference. */
export const precisionCaseChecks = async (one: Case, precision: CoarsePrecision): Promise<readonly Check[]> => {
  const checks: Check[] = []
  for (const layout of layoutsOf(one)) {
    const internvl = await load(join(one.dir, layout), {
      configure: asReferenced,
      imageBackend: 'pillow',
      ...options[precision]
    })
    for (const input of await readInputs(one.dir, internvl.config.textConfig)) {
      const name = `${one.name}/${layout}/${input.label}: logits in ${precision}`
      checks.push(inputCheck(name, internvl, input, toleranceOf(precision)))
    }
    internvl.dispose()
  }
  return checks
}
