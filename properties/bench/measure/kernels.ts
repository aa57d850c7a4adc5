import { cpus } from 'node:os'
import { Command, Option } from 'commander'
import { type EngineName, engineNames, selectEngine } from '../../../lib/engines/index.js'
import { kernelsInUse } from '../../../lib/engines/kernels/register.js'
import { gated, gelu } from '../../../lib/nn/activation.js'
import { attend, attendMerged } from '../../../lib/nn/attention/attention.js'
import { affine } from '../../../lib/nn/linear.js'
import { layerNorm, rmsNorm } from '../../../lib/nn/norm.js'
import { residual } from '../../../lib/nn/residual.js'
import { applyRope } from '../../../lib/nn/rope.js'
import { withoutKernels } from '../../../lib/ops/kernel.js'
import { tf } from '../../../lib/tf.js'

// Times every kernel against the composition of plain ops, at the shapes of InternVL3-1B: one tile, a prompt of 320 tokens, one
// decoding step. Prints the best of alternating runs in milliseconds. `tsx properties/bench/measure/kernels.ts [--engine wasm]`

const { engine } = new Command('kernels')
  .addOption(new Option('--engine <name>', 'engine whose kernels are timed').choices(engineNames).default('native'))
  .parse()
  .opts<{ readonly engine: EngineName }>()
await selectEngine({ engine })
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
const [square, fc1, fc2, up, down, head] = [
  weight(1024, 1024),
  weight(4096, 1024),
  weight(1024, 4096),
  weight(4864, 896),
  weight(896, 4864),
  weight(151674, 896)
]
const [d, bias, gain] = [random<tf.Rank.R1>(1024), random<tf.Rank.R1>(4096), random<tf.Rank.R1>(896)]
const tables = { cos: random<tf.Rank.R4>(1, 1, 320, 64), sin: random<tf.Rank.R4>(1, 1, 320, 64) }

/** One layer of InternViT-300M. */
const block = (x: tf.Tensor3D): tf.Tensor3D => {
  const norm = layerNorm(1024, 1e-6).apply({ weight: d, bias: d })
  const project = (x: tf.Tensor3D) => affine(x, square, d)
  const y = norm(x)
  const h = residual(x, project(attendMerged(project(y), project(y), project(y), 16, 1 / 8)), d)
  return residual(h, affine(affine(norm(h), fc1, bias, 'gelu'), fc2, d), d)
}

/** The function to time and, for matrix products, the number of floating-point operations. */
type Case = readonly [run: () => tf.Tensor, operations?: number]
const product = (M: number, N: number, K: number): number => 2 * M * N * K

const cases: Readonly<Record<string, Case>> = {
  'vision block': [() => block(x), product(1025, 12 * 1024, 1024) + product(1025, 2 * 1024, 1025)],
  'vision q, k, v': [() => affine(x, square, d), product(1025, 1024, 1024)],
  'vision fc1, GELU': [() => affine(x, fc1, bias, 'gelu'), product(1025, 4096, 1024)],
  'vision fc2': [() => affine(wide, fc2, d), product(1025, 1024, 4096)],
  'vision attention': [() => attendMerged(x, x, x, 16, 1 / 8), product(1025, 2 * 1024, 1025)],
  'vision norm': [() => layerNorm(1024, 1e-6).apply({ weight: d, bias: d })(x)],
  'vision residual': [() => residual(x, x, d)],
  GELU: [() => gelu(wide)],
  'prompt attention': [() => attend(many, k, v, 1 / 8, { causalFrom: 0 }), product(320, 14 * 64, 320)],
  'prompt down': [() => affine(tokens, down), product(320, 896, 4864)],
  'prompt gate': [() => gated('silu', tokens, tokens)],
  'prompt rope': [() => applyRope(many, tables)],
  'step up': [() => affine(step, up), product(1, 4864, 896)],
  'step head': [() => affine(step, head), product(1, 151674, 896)],
  'step attention': [() => attend(one, k, v, 1 / 8, { causalFrom: 319 })],
  'step norm': [() => rmsNorm(896, 1e-6).apply({ weight: gain })(step)]
}

const time = (f: () => tf.Tensor): number => {
  const start = performance.now()
  tf.tidy(() => void f())
  return performance.now() - start
}
/** Best times of 2 to 15 alternating pairs of runs, within about two seconds. */
const best = (f: () => tf.Tensor): readonly [kernel: number, composition: number] => {
  const pairs: (readonly [number, number])[] = []
  const start = performance.now()
  while (pairs.length < 2 || (pairs.length < 15 && performance.now() - start < 2000))
    pairs.push([time(f), withoutKernels(() => time(f))])
  return [Math.min(...pairs.map(([kernel]) => kernel)), Math.min(...pairs.map(([, composition]) => composition))]
}

const cells = (...values: readonly string[]): string => values.map((value) => value.padStart(10)).join('')
console.log(`${engine} engine, ${cpus()[0]?.model}, ${cpus().length} cores, float32`)
console.log(`${'ms'.padEnd(20)}${cells('kernel', 'ops', 'faster', 'GFLOP/s')}`)
for (const [name, [f, operations]] of Object.entries(cases)) {
  const [kernel, composition] = best(f)
  const speed = operations ? (operations / kernel / 1e6).toFixed(1) : ''
  console.log(
    `${name.padEnd(20)}${cells(kernel.toFixed(3), composition.toFixed(3), `${(composition / kernel).toFixed(1)}x`, speed)}`.trimEnd()
  )
}
