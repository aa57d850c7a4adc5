import { readFileSync } from 'node:fs'
import { tf } from '../../lib/tf.js'

/** A tensor of `layers.json`. */
export interface Packed {
  readonly shape: readonly number[]
  readonly values: readonly number[]
}

/** What PyTorch computes for single layers, made by `layers.py`. */
export const layers = JSON.parse(readFileSync(new URL('layers.json', import.meta.url), 'utf8'))

export const unpack = <T extends tf.Tensor>({ shape, values }: Packed): T =>
  tf.tensor([...values], [...shape], 'float32') as tf.Tensor as T
