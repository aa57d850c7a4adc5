import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { type Batch, disposeCache, type ForwardResult } from '../batch-cache.js'
import type { GenerateOptions } from '../generation-options.js'

/** Whether logits are guided away from those of a negative prompt; 1 guides nowhere. */
export const isGuided = ({ guidanceScale = 1 }: GenerateOptions): boolean => guidanceScale !== 1

/** The negative prompt of each row; by default the last token of its prompt. Throws a `RangeError` for another number of prompts. */
export const negativePrompts = (
  { negativePromptIds: ids }: GenerateOptions,
  prompts: readonly (readonly number[])[]
): readonly (readonly number[])[] => {
  if (!ids) return prompts.map((prompt) => prompt.slice(-1))
  if (typeof ids[0] === 'number') return prompts.map(() => ids as readonly number[])
  const lists = ids as readonly (readonly number[])[]
  if (lists.length !== prompts.length)
    throw new RangeError(
      `negativePromptIds: ${lists.length} prompts for ${prompts.length} rows; give one list of ids, or one for each row`
    )
  return lists
}

/** Token ids `[B, L]` and mask of prompts, padded on the left. The caller disposes both. */
export const paddedPrompts = (prompts: readonly (readonly number[])[]) => {
  const L = Math.max(...prompts.map((ids) => ids.length))
  const padded = prompts.map((ids) => [...Array<number>(L - ids.length).fill(0), ...ids])
  const mask = prompts.map((ids) => [...Array<number>(L - ids.length).fill(0), ...ids.map(() => 1)])
  const size: [number, number] = [prompts.length, L]
  return { inputIds: tf.tensor2d(padded, size, 'int32'), attentionMask: tf.tensor2d(mask, size, 'int32') }
}

/**
 * `scale · (log p − log n) + log n` of logits `[N, V]` with and of logits without the prompt; both stay the caller's.
 * Source: `UnbatchedClassifierFreeGuidanceLogitsProcessor` (transformers 5.24); Sanchez et al. 2023.
 */
const guidedLogits = (logits: tf.Tensor2D, negative: tf.Tensor2D, scale: number): tf.Tensor2D =>
  tf.tidy(() => {
    const [p, n] = [logits.logSoftmax(), negative.logSoftmax()]
    return p.sub(n).mul(scale).add<tf.Tensor2D>(n)
  })

/** The negative prompts' side of a guided generation; each step follows the rows of the generation. */
export interface Guidance {
  /** Guided logits `[N, V]`, which the caller disposes; the negative side's own logits are disposed. */
  readonly guide: (logits: tf.Tensor2D) => tf.Tensor2D
  /** Forward of each remaining row's last token. */
  readonly advance: (
    open: readonly number[],
    forward: (model: InternVL, batch: Batch) => ForwardResult,
    keep: (batch: Batch, rows: readonly number[]) => Batch
  ) => void
  readonly dispose: () => void
}

/** The negative side of a generation, after the prefill of the negative prompts. Takes over `start`. */
export const guidanceFrom = (model: InternVL, start: ForwardResult, scale: number): Guidance => {
  let output = start
  return {
    guide: (logits) => {
      try {
        return guidedLogits(logits, output.logits, scale)
      } finally {
        output.logits.dispose()
      }
    },
    advance: (open, forward, keep) => {
      output = forward(model, keep(output.batch, open))
    },
    dispose: () => {
      disposeCache(output.batch.kv)
      output.logits.dispose()
    }
  }
}
