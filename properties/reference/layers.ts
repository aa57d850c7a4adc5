import { readFileSync } from 'node:fs'
import { tf } from '../../lib/tf.js'

/** A tensor in `layers.json`. */
export interface Packed {
  readonly shape: readonly number[]
  readonly values: readonly number[]
}

/** Results of PyTorch for single layers, written by `layers.py`. */
export const layers = JSON.parse(readFileSync(new URL('layers.json', import.meta.url), 'utf8'))

export const unpack = <T extends tf.Tensor>({ shape, values }: Packed): T =>
  tf.tensor([...values], [...shape], 'float32') as tf.Tensor as T
