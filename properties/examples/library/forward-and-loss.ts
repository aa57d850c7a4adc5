import { causalLoss, load, tf } from '../../../generation/root.js'
import { checkpoint } from '../demo-files.js'

/** A forward pass on custom tensors: logits `[B, L, V]`, and the loss of next-token prediction. */
export const lossOfCustomTensors = async (): Promise<{ readonly shape: readonly number[]; readonly loss: number }> => {
  const { model, config, dispose } = await load(checkpoint)
  const [image, N] = [config.imageTokenId!, config.imageSeqLength]
  const result = tf.tidy(() => {
    const ids = [5, 6, ...Array<number>(N).fill(image), 7, 8]
    const inputIds = tf.tensor2d([ids], undefined, 'int32')
    const pixelValues = tf.randomNormal<tf.Rank.R4>([1, 3, ...config.visionConfig.imageSize], 0, 1, 'float32', 1)
    const labels = tf.tensor2d([ids.map((id) => (id === image ? -100 : id))], undefined, 'int32')
    const { logits } = model({ inputIds, pixelValues })
    return { shape: logits.shape, loss: causalLoss(logits, labels).dataSync()[0]! }
  })
  dispose()
  return result
}
