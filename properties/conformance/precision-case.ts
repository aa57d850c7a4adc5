import { join } from 'node:path'
import { type InternVLCheckpoint, load } from '../../generation/checkpoint/load.js'
import { tf } from '../../lib/tf.js'
import type { KVCache } from '../../models/decoders/decoder.js'
import { type PrecisionName, precisions } from '../bench/measure/precisions.js'
import { relativeL2 } from '../bench/measure/quality.js'
import type { Case } from './case.js'
import { type Check, expectThat } from './check.js'
import { asReferenced, layoutsOf, readInputs, type StoredInput, storedInputs } from './stored.js'

/** How far logits may be from the reference: `‖difference‖ / ‖logits‖`. In bfloat16 a token of the GPT-OSS case changes its expert, in PyTorch too. */
export const tolerances = { bfloat16: 0.03, int8: 0.02, '4bit': 0.1 } as const satisfies Partial<Record<PrecisionName, number>>
export type CoarsePrecision = keyof typeof tolerances

/** Tokens that are given one at a time: packed weights meet few rows in kernels of their own. */
const steps = 4

const dataOf = (t: tf.Tensor): Float32Array => t.dataSync() as Float32Array

/** Logits `[B, L, V]`: of the prompt but for its last tokens, then of these with a cache. */
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

/** Rows of logits that are no padding. */
const seenRows = (logits: Float32Array, seen: Float32Array): readonly Float32Array[] => {
  const width = logits.length / seen.length
  return Array.from(seen, (is, i) => (is ? logits.subarray(i * width, (i + 1) * width) : new Float32Array(0)))
}

const inputCheck = (name: string, internvl: InternVLCheckpoint, one: StoredInput, most: number): Check => {
  const [expected, seen] = [one.stored.get('logits')!.values, one.stored.get('attention_mask')!.values]
  const apart = tf.tidy(() => relativeL2(seenRows(dataOf(stepped(internvl, one)), seen), seenRows(expected, seen)))
  const percent = (x: number) => `${(100 * x).toFixed(2)} %`
  return {
    name,
    outcome: expectThat(apart <= most, () => `${percent(apart)} from the reference, at most ${percent(most)}`),
    apart
  }
}

/** A case with its weights in fewer bits: how far the logits of each input are from the reference. */
export const precisionCaseChecks = async (one: Case, precision: CoarsePrecision): Promise<readonly Check[]> => {
  const checks: Check[] = []
  for (const layout of layoutsOf(one)) {
    const internvl = await load(join(one.dir, layout), { configure: asReferenced, ...precisions[precision] })
    for (const input of await readInputs(one.dir, internvl.config.textConfig)) {
      const name = `${one.name}/${layout}/${input.label}: logits in ${precision}`
      checks.push(inputCheck(name, internvl, input, tolerances[precision]))
    }
    internvl.dispose()
  }
  return checks
}
