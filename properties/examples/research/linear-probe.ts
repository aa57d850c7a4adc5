import { sceneSample } from '../../../generation/demo/scenes.js'
import { type InternVLCheckpoint, orThrow, tf } from '../../../generation/root.js'
import type { Messages } from '../../../processors/text/messages.js'

/** States of the last token of questions for a colour, `[n, D]` for each layer (0: the embeddings), and the right words. */
const statesOf = async ({ model, processor }: InternVLCheckpoint, seed: number, n: number) => {
  const rows = Array.from({ length: n }, (_, i) => sceneSample(seed, i, { color: 1 }).messages)
  const inputs = await orThrow(processor.prepare(rows.map(([asked]) => [asked]) as unknown as Messages[]))
  const { inputIds, pixelValues, attentionMask } = inputs
  const states = tf.tidy(() => {
    const { hiddenStates } = model({ inputIds, pixelValues }, { attentionMask, outputHiddenStates: true, logitsToKeep: 1 })
    return hiddenStates!.map((layer) => layer.slice([0, layer.shape[1] - 1, 0], [n, 1, -1]).reshape<tf.Tensor2D>([n, -1]))
  })
  inputs.dispose()
  return { states, words: rows.map(([, answer]) => answer!.content as string) }
}

/** Solves `A x = B` by Gaussian elimination with pivots; A is `[n][n]`, B `[n][m]`. */
const solve = (A: readonly (readonly number[])[], B: readonly (readonly number[])[]): number[][] => {
  const n = A.length
  const rows = A.map((row, i) => [...row, ...B[i]!])
  for (let i = 0; i < n; i++) {
    const pivot = rows.slice(i).reduce((best, row, j) => (Math.abs(row[i]!) > Math.abs(rows[best]![i]!) ? i + j : best), i)
    ;[rows[i], rows[pivot]] = [rows[pivot]!, rows[i]!]
    for (let j = 0; j < n; j++) {
      if (j === i) continue
      const factor = rows[j]![i]! / rows[i]![i]!
      for (let k = i; k < rows[j]!.length; k++) rows[j]![k]! -= factor * rows[i]![k]!
    }
  }
  return rows.map((row, i) => row.slice(n).map((value) => value / row[i]!))
}

/**
 * Linear probes: how well a linear classifier reads the colour from the states of each layer, as the share of right words on fresh scenes.
 * Ridge regression to one-hot labels in its dual form, `Kᵀ (K Kᵀ + λ I)⁻¹ Y`. Source: Alain and Bengio 2016.
 */
export const probeColours = async (internvl: InternVLCheckpoint, trained = 48, tested = 24): Promise<readonly number[]> => {
  const [train, test] = [await statesOf(internvl, 1, trained), await statesOf(internvl, 2, tested)]
  const classes = [...new Set(train.words)]
  const labels = train.words.map((word) => classes.map((one) => Number(one === word)))
  const accuracies = train.states.map((states, layer) =>
    tf.tidy(() => {
      const [mean, scale] = [states.mean(0), states.sub(states.mean(0)).norm().div(Math.sqrt(states.size))]
      const normal = (x: tf.Tensor2D) =>
        x
          .sub<tf.Tensor2D>(mean)
          .divNoNan<tf.Tensor2D>(scale)
          .concat(tf.ones([x.shape[0], 1]), 1)
      const [x, z] = [normal(states), normal(test.states[layer]!)]
      const kernel = tf.matMul(x, x, false, true).arraySync() as number[][]
      const alpha = solve(kernel.map((row, i) => row.map((value, j) => value + (i === j ? 10 : 0))), labels) // biome-ignore format: one line
      const predicted = tf
        .matMul(tf.matMul(z, x, false, true), tf.tensor2d(alpha))
        .argMax(1)
        .dataSync()
      return test.words.filter((word, i) => classes[predicted[i]!] === word).length / tested
    })
  )
  tf.dispose([...train.states, ...test.states])
  return accuracies
}
