import { sceneSample } from '../../../generation/demo/scenes.js'
import { type InternVLCheckpoint, orThrow, tf } from '../../../generation/root.js'

/** States of the last token of questions for a colour, `[n, D]` for each layer (0: the embeddings), and the right words. */
const statesOf = async ({ model, processor }: InternVLCheckpoint, seed: number, n: number) => {
  const rows = Array.from({ length: n }, (_, i) => sceneSample(seed, i, { color: 1 }).messages)
  const inputs = await orThrow(processor.prepare(rows.map(([asked]) => [asked!])))
  const { inputIds, pixelValues, attentionMask } = inputs
  const states = tf.tidy(() => {
    const { hiddenStates } = model({ inputIds, pixelValues }, { attentionMask, outputHiddenStates: true, logitsToKeep: 1 })
    return hiddenStates!.map((layer) => layer.slice([0, layer.shape[1] - 1, 0], [n, 1, -1]).reshape<tf.Tensor2D>([n, -1]))
  })
  inputs.dispose()
  return { states, words: rows.map(([, answer]) => answer!.content as string) }
}

/** The inverse of a symmetric positive definite matrix by Newton's iteration. Source: Schulz 1933. */
const inverseOf = (A: tf.Tensor2D, start = tf.eye(A.shape[0]).div<tf.Tensor2D>(A.mul(tf.eye(A.shape[0])).sum())) =>
  Array.from({ length: 24 }).reduce<tf.Tensor2D>((X) => X.mul(2).sub(X.matMul(A).matMul(X)), start)

/**
 * Linear probes: the share of right colours, by a linear classifier on the states of each layer, on fresh scenes. Ridge regression to
 * one-hot labels in its dual form, `Kᵀ (K Kᵀ + λ I)⁻¹ Y`. Source: Alain and Bengio 2016.
 */
export const probeColours = async (internvl: InternVLCheckpoint, trained = 48, tested = 24): Promise<readonly number[]> => {
  const [train, test] = [await statesOf(internvl, 1, trained), await statesOf(internvl, 2, tested)]
  const classes = [...new Set(train.words)]
  const labels = train.words.map((word) => classes.indexOf(word))
  const shareOf = (states: tf.Tensor2D, fresh: tf.Tensor2D): number => {
    const centred = (s: tf.Tensor2D) => s.sub(states.mean(0))
    const scale = centred(states).square().mean().sqrt()
    const [x, z] = [states, fresh].map((s) => centred(s).divNoNan<tf.Tensor2D>(scale).pad([[0, 0], [0, 1]], 1)) as [tf.Tensor2D, tf.Tensor2D] // biome-ignore format: one line
    const weights = inverseOf(x.matMul(x, false, true).add(tf.eye(trained).mul(10))).matMul(tf.oneHot(labels, classes.length))
    const predicted = z.matMul(x, false, true).matMul(weights).argMax(1).dataSync()
    return test.words.filter((word, i) => classes[predicted[i]!] === word).length / tested
  }
  const shares = tf.tidy(() => train.states.map((states, layer) => shareOf(states, test.states[layer]!)))
  tf.dispose([...train.states, ...test.states])
  return shares
}
