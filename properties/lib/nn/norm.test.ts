import fc from 'fast-check'
import { layerNorm, noNorm, rmsNorm } from '../../../lib/nn/norm.js'
import { tf } from '../../../lib/tf.js'
import { count } from '../../arbitraries/tensor.js'
import { assertClose } from '../../laws/close.js'
import { moduleLaws } from '../../laws/module-laws.js'
import { layers, unpack } from '../../reference/layers.js'

const configs = fc.record({ features: count(6, 2), length: count(3) })

for (const [name, norm] of Object.entries({ layerNorm, rmsNorm, noNorm: () => noNorm }))
  moduleLaws(
    name,
    configs,
    ({ features, length }) => ({
      module: norm(features, 1e-2) as ReturnType<typeof rmsNorm>,
      input: [2, length, features],
      output: [2, length, features]
    }),
    (forward, x) => forward(x)
  )

describe('norm', () => {
  const { x, weight, bias, ...expected } = layers.norms
  it('layerNorm is PyTorch’s', () =>
    tf.tidy(() => {
      const params = { weight: unpack<tf.Tensor1D>(weight), bias: unpack<tf.Tensor1D>(bias) }
      assertClose(layerNorm(6, 1e-2).apply(params)(unpack(x)), unpack(expected.layerNorm), 1e-6)
    }))

  it('rmsNorm is PyTorch’s', () =>
    tf.tidy(() => assertClose(rmsNorm(6, 1e-2).apply({ weight: unpack(weight) })(unpack(x)), unpack(expected.rmsNorm), 1e-6)))
})
