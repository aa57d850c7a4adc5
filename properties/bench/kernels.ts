import { cpus } from 'node:os'
import { selectEngine } from '../../lib/engines/index.js'
import { kernelsInUse } from '../../lib/engines/kernels/register.js'
import { gated, gelu } from '../../lib/nn/activation.js'
import { attend, attendMerged } from '../../lib/nn/attention.js'
import { withoutKernels } from '../../lib/nn/fused.js'
import { affine } from '../../lib/nn/linear.js'
import { layerNorm, rmsNorm } from '../../lib/nn/norm.js'
import { addScaled } from '../../lib/nn/residual.js'
import { applyRope } from '../../lib/nn/rope.js'
import { tf } from '../../lib/tf.js'

// Each kernel against the composition of plain ops, at the shapes of InternVL3-1B: one tile, a prompt of 320 tokens, one step.
// Best of some alternating runs, in milliseconds: another program's load falls on both. `tsx properties/bench/kernels.ts`

await selectEngine({ engine: 'native' })
if (kernelsInUse().length === 0) throw new Error('no kernels to measure: see `internvl doctor`')

const random = <R extends tf.Rank>(...shape: tf.ShapeMap[R]): tf.Tensor<R> => tf.randomNormal<R>(shape as tf.ShapeMap[R])
const x = random<tf.Rank.R3>(1, 1025, 1024)
const wide = random<tf.Rank.R3>(1, 1025, 4096)
const step = random<tf.Rank.R3>(1, 1, 896)
const tokens = random<tf.Rank.R3>(1, 320, 4864)
const [k, v] = [random<tf.Rank.R4>(1, 2, 320, 64), random<tf.Rank.R4>(1, 2, 320, 64)]
const queries = (L: number) => random<tf.Rank.R4>(1, 14, L, 64)
const [many, one] = [queries(320), queries(1)]
const weight = (out: number, features: number) => random<tf.Rank.R2>(out, features)
const [fc1, fc2, up, down, head] = [
  weight(4096, 1024),
  weight(1024, 4096),
  weight(4864, 896),
  weight(896, 4864),
  weight(151674, 896)
]
const [d, bias, gain] = [random<tf.Rank.R1>(1024), random<tf.Rank.R1>(4096), random<tf.Rank.R1>(896)]
const tables = { cos: random<tf.Rank.R4>(1, 1, 320, 64), sin: random<tf.Rank.R4>(1, 1, 320, 64) }

const cases: Readonly<Record<string, () => tf.Tensor>> = {
  'vision fc1, GELU': () => affine(x, fc1, bias, 'gelu'),
  'vision fc2': () => affine(wide, fc2, d),
  'vision attention': () => attendMerged(x, x, x, 16, 1 / 8),
  'vision norm': () => layerNorm(1024, 1e-6).apply({ weight: d, bias: d })(x),
  'vision residual': () => addScaled(x, x, d),
  GELU: () => gelu(wide),
  'prompt attention': () => attend(many, k, v, 1 / 8, { causalFrom: 0 }),
  'prompt down': () => affine(tokens, down),
  'prompt gate': () => gated('silu', tokens, tokens),
  'prompt rope': () => applyRope(many, tables),
  'step up': () => affine(step, up),
  'step head': () => affine(step, head),
  'step attention': () => attend(one, k, v, 1 / 8, { causalFrom: 319 }),
  'step norm': () => rmsNorm(896, 1e-6).apply({ weight: gain })(step)
}

const time = (f: () => tf.Tensor): number => {
  const start = performance.now()
  tf.tidy(() => void f())
  return performance.now() - start
}
const best = (f: () => tf.Tensor, runs: number): readonly [kernel: number, composition: number] => {
  const pairs = Array.from({ length: runs }, () => [time(f), withoutKernels(() => time(f))] as const)
  return [Math.min(...pairs.map(([kernel]) => kernel)), Math.min(...pairs.map(([, composition]) => composition))]
}

console.log(
  `${cpus()[0]?.model}, ${cpus().length} cores, float32\n${'ms'.padEnd(20)}${'kernel'.padStart(10)}${'ops'.padStart(10)}${'faster'.padStart(10)}`
)
for (const [name, f] of Object.entries(cases)) {
  const [kernel, composition] = best(f, 15)
  console.log(
    `${name.padEnd(20)}${kernel.toFixed(3).padStart(10)}${composition.toFixed(3).padStart(10)}${`${(composition / kernel).toFixed(1)}x`.padStart(10)}`
  )
}
