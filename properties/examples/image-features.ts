import { load, orThrow, tf } from '../../generation/root.js'
import { checkpoint, circle, shapes } from './pictures.js'

/** What the decoder sees of pictures, `[tiles, tokens, hidden]`; how alike two of them are, as the cosine of their means. */
export const similarityOfPictures = async (): Promise<{ readonly shape: readonly number[]; readonly cosine: number }> => {
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
