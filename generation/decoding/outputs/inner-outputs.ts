import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'

/** Attention weights `[B, H, Lq, Lk]` of the chosen layers, and states `[B, Lq, D]` of embeddings and layers, of one forward. */
export interface InnerOutputs {
  readonly attentions?: readonly tf.Tensor4D[] | undefined
  readonly hiddenStates?: readonly tf.Tensor3D[] | undefined
}

/** The same of a whole `generate` call, by token and then by layer, as in Transformers. */
export interface InnerOutputsByToken {
  readonly attentions?: readonly (readonly tf.Tensor4D[])[] | undefined
  readonly hiddenStates?: readonly (readonly tf.Tensor3D[])[] | undefined
}

/** The options of `generate` that ask for inner outputs. */
export interface InnerOutputOptions {
  readonly outputAttentions?: boolean | readonly number[] | undefined
  readonly outputHiddenStates?: boolean | undefined
}

/** Options that ask for no inner outputs, for callers that keep the text alone. */
export const withoutInnerOutputs = { outputAttentions: false, outputHiddenStates: false } as const

/** Whether the options ask for attention weights or hidden states. */
export const returnsInnerOutputs = ({ outputAttentions, outputHiddenStates }: InnerOutputOptions): boolean =>
  outputHiddenStates === true || (Array.isArray(outputAttentions) ? outputAttentions.length > 0 : outputAttentions === true)

/** The model whose `decode` returns the inner outputs that the options ask for. */
export const withInnerOutputs = (model: InternVL, options: InnerOutputOptions): InternVL => {
  if (!returnsInnerOutputs(options)) return model
  const inner = {
    ...(options.outputAttentions ? { outputAttentions: options.outputAttentions } : {}),
    ...(options.outputHiddenStates ? { outputHiddenStates: true } : {})
  }
  const decode: InternVL['decode'] = (embeds, others) => model.decode(embeds, { ...others, ...inner })
  return Object.assign((...args: Parameters<InternVL>) => model(...args), model, { decode })
}

/** The inner outputs of a forward, without its other fields. */
export const innerOutputs = ({ attentions, hiddenStates }: InnerOutputs): InnerOutputs => ({
  ...(attentions ? { attentions } : {}),
  ...(hiddenStates ? { hiddenStates } : {})
})

/** Disposes the inner outputs of a forward. */
export const disposeInnerOutputs = ({ attentions = [], hiddenStates = [] }: InnerOutputs): void =>
  tf.dispose([...attentions, ...hiddenStates])

/** Rows of a tensor by index; zeros for -1. A new tensor. */
const selectRowsOrZeros = <T extends tf.Tensor>(t: T, rows: readonly number[]): T =>
  tf.tidy(() => {
    if (rows.length === t.shape[0] && rows.every((row, i) => row === i)) return t.clone()
    const zeros = tf.zeros([1, ...t.shape.slice(1)], t.dtype)
    return tf.concat([zeros, t]).gather(
      tf.tensor1d(
        rows.map((row) => row + 1),
        'int32'
      )
    ) as T
  })

/** Collects the inner outputs of the forwards of one `generate` call. */
export interface InnerOutputCollector {
  /**
   * Takes over the inner outputs of a forward whose logits select `tokens` tokens, one by default, of `candidates + 1` that were computed: each
   * token gets a part of its own. `rows` has the batch row of each row of the result, -1 for rows that have finished.
   */
  readonly take: (outputs: InnerOutputs, rows: readonly number[], tokens?: number, candidates?: number) => void
  /** The outputs by token. The caller owns the tensors. */
  readonly result: () => InnerOutputsByToken
  /** Disposes everything that was taken. */
  readonly dispose: () => void
}

/** A collector; without the options it takes nothing and its result has no field. Source: `_split_model_outputs` (transformers 5.24). */
export const innerOutputCollector = (options: InnerOutputOptions): InnerOutputCollector => {
  if (!returnsInnerOutputs(options)) return { take: () => undefined, result: () => ({}), dispose: () => undefined }
  const [attentions, hiddenStates]: [tf.Tensor4D[][], tf.Tensor3D[][]] = [[], []]
  const take: InnerOutputCollector['take'] = (outputs, rows, tokens = 1, candidates = 0) => {
    for (let i = 0; i < tokens; i++) {
      const dropped = candidates - i
      const queries = (length: number) => (i === 0 ? [0, length - candidates] : [length - dropped - 1, 1]) as [number, number]
      if (outputs.attentions)
        attentions.push(
          outputs.attentions.map((weights) => {
            const [B, H, Lq, Lk] = weights.shape
            const [start, size] = queries(Lq)
            return tf.tidy(() => selectRowsOrZeros(weights.slice([0, 0, start, 0], [B, H, size, Lk - dropped]), rows))
          })
        )
      if (outputs.hiddenStates)
        hiddenStates.push(
          outputs.hiddenStates.map((states) => {
            const [B, L, D] = states.shape
            const [start, size] = queries(L)
            return tf.tidy(() => selectRowsOrZeros(states.slice([0, start, 0], [B, size, D]), rows))
          })
        )
    }
    disposeInnerOutputs(outputs)
  }
  return {
    take,
    result: () => ({
      ...(options.outputAttentions ? { attentions } : {}),
      ...(options.outputHiddenStates ? { hiddenStates } : {})
    }),
    dispose: () => tf.dispose([attentions, hiddenStates])
  }
}
