import { activations } from '../../../lib/nn/activation.js'
import { tf } from '../../../lib/tf.js'
import { assertClose } from '../../laws/close.js'
import { layers } from '../../reference/layers.js'

describe('activation', () => {
  for (const [name, f] of Object.entries(activations)) {
    it(`${name} is Transformers' of that name`, () =>
      tf.tidy(() => assertClose(f(tf.tensor1d(layers.activations.x)), tf.tensor1d(layers.activations[name]), 1e-6)))
  }
})
