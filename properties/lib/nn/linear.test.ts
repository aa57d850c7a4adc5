import fc from 'fast-check'
import { linear } from '../../../lib/nn/linear.js'
import { tf } from '../../../lib/tf.js'
import { count, randomParams, randomTensor, seed } from '../../arbitraries/tensor.js'
import { check } from '../../laws/check.js'
import { assertClose } from '../../laws/close.js'
import { moduleLaws } from '../../laws/module-laws.js'

const configs = fc.record({
  from: count(5),
  to: count(5),
  bias: fc.boolean(),
  leading: fc.array(count(3), { minLength: 1, maxLength: 3 })
})

moduleLaws(
  'linear',
  configs,
  ({ from, to, bias, leading }) => ({ module: linear(from, to, { bias }), input: [...leading, from], output: [...leading, to] }),
  (forward, x) => forward(x)
)

describe('linear', () => {
  it('is affine: f(x) + f(y) − f(0) = f(x + y)', () =>
    check(fc.record({ config: configs, seed }), ({ config: { from, to, bias, leading }, seed }) => {
      const module = linear(from, to, { bias })
      const f = module.apply(randomParams(module, seed))
      const [x, y] = [randomTensor([...leading, from], seed), randomTensor([...leading, from], seed + 1)]
      assertClose(
        f(x)
          .add(f(y))
          .sub(f(tf.zerosLike(x))),
        f(x.add(y))
      )
    }))
})
