import { tf } from '../../../generation/root.js'
import type { Rgb } from '../../../processors/image/resize.js'
import { pngOf } from './png.js'

/** Method by which Deno's Jupyter kernel shows a value. */
const display = Symbol.for('Jupyter.display')

/** An image by its MIME type. */
const bundleOf = (image: Rgb) => ({ 'image/png': pngOf(image).toString('base64') })

/** A value that a notebook shows as an image. */
export const show = (image: Rgb) => ({ [display]: () => bundleOf(image) })

/** The pixels of a tensor `[H, W]`, `[H, W, 3]`, `[3, H, W]` or `[T, 3, H, W]`, tiles side by side, from its least to its largest value. */
const toImage = (x: tf.Tensor): Rgb | undefined =>
  tf.tidy(() => {
    const [a, b, c, d] = x.shape as readonly number[]
    const isImage = (height = 0, width = 0): boolean => height >= 16 && width >= 16
    const rows =
      x.rank === 4 && b === 3 && isImage(c, d)
        ? x.transpose([2, 0, 3, 1]).reshape([c!, a! * d!, 3])
        : x.rank === 3 && a === 3 && isImage(b, c)
          ? x.transpose([1, 2, 0])
          : x.rank === 3 && c === 3 && isImage(a, b)
            ? x
            : x.rank === 2 && isImage(a, b)
              ? x.expandDims(2).tile([1, 1, 3])
              : undefined
    if (!rows) return undefined
    const bytes = rows.sub(rows.min()).div(rows.max().sub(rows.min()).maximum(1e-12)).mul(255).round().dataSync()
    return { width: rows.shape[1]!, height: rows.shape[0]!, data: Uint8Array.from(bytes) }
  })

/** Makes tensors show themselves in a notebook: images as images, others with type, shape and values. */
Object.assign(tf.Tensor.prototype, {
  [display]: function (this: tf.Tensor) {
    const image = toImage(this)
    return { 'text/plain': this.toString(true), ...(image ? bundleOf(image) : {}) }
  }
})
