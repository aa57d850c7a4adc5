import { load, orThrow, tf } from '../../../generation/root.js'
import { checkpoint, circle, shapes } from '../demo-files.js'

/** Image features `[tiles, tokens, hidden]`, and the cosine similarity of two images' mean features. */
export const similarityOfImages = async (): Promise<{ readonly shape: readonly number[]; readonly cosine: number }> => {
  const { model, processor, dispose } = await load(checkpoint)
  const { inputIds, attentionMask, pixelValues } = await orThrow(
    processor.prepareText({ text: ['<IMG_CONTEXT><IMG_CONTEXT>'], images: [circle, shapes] })
  )
  const result = tf.tidy(() => {
    const features = model.imageFeatures(pixelValues!)
    const means = features.mean(1) as tf.Tensor2D
    const [a, b] = tf.unstack(means.div(means.norm('euclidean', 1, true)))
    return { shape: features.shape, cosine: a!.mul(b!).sum().dataSync()[0]! }
  })
  tf.dispose([inputIds, attentionMask, pixelValues!])
  dispose()
  return result
}
