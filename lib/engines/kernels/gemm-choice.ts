import { readFileSync } from 'node:fs'
import { type Issue, issue } from '../../error.js'
import { runKernel } from '../../ops/kernel.js'
import { tf } from '../../tf.js'
import { writeAtomically } from '../install/file-trust.js'
import { changeKernelSettings, type GemmKind, gemmKindOf, gemmKinds, gemmKindsFor, type Product, withKernelSettings } from './settings.js' // biome-ignore format: one line

/** Speed of a product in each kind of arithmetic that the processor can run, in GFLOP/s. */
export type GemmSpeeds = { readonly [K in GemmKind]?: number }

/** Speeds of matrix products with many rows for each format of weights, and of attention of many queries. */
export type GemmTable = { readonly [P in Product]?: GemmSpeeds }

/** The kind for one product, and the measured speeds, if there are any. */
export interface GemmChoice {
  readonly product: Product
  readonly kind: GemmKind
  readonly gflops: GemmSpeeds
}

const products = ['bfloat16', 'int8', 'int6', 'int4', 'attention'] as const satisfies readonly Product[]

/** The shape that is measured, a few milliseconds: `[M, K] x [K, N]`; attention of as many queries as a tile of 448 pixels has, in a few heads of 64. */
const [M, K, N, rounds] = [256, 1024, 512, 7]
const [queries, numHeads] = [1024, 4]

/** A product to measure, and its number of floating-point operations. */
const measured = (product: Product): { readonly run: () => tf.Tensor; readonly operations: number } => {
  if (product === 'attention') {
    const q = tf.randomNormal([1, queries, numHeads * 64])
    const run = () => runKernel<tf.Tensor>('Attention', { q, k: q, v: q }, { scale: 1 / 8, numHeads, bfloat16: true })
    return { run, operations: 4 * queries * queries * numHeads * 64 }
  }
  const x = tf.randomNormal([M, K])
  const weight = runKernel<tf.Tensor>('QuantizeWeight', { x: tf.randomNormal([N, K]) }, { format: product })
  return { run: () => runKernel('QuantizedLinear', { x, weight }, { format: product }), operations: 2 * M * K * N }
}

/** The speed of each kind by its best time; the kinds take turns, so that a busy moment of the machine is not one kind's alone. */
const speedsOf = (product: Product): GemmSpeeds =>
  tf.tidy(() => {
    const kinds = gemmKindsFor(product)
    const { run, operations } = measured(product)
    const timeOf = (kind: GemmKind): number =>
      withKernelSettings({ gemmKinds: { [product]: kind } }, () => {
        const start = performance.now()
        tf.dispose(run())
        return performance.now() - start
      })
    const times = Array.from({ length: rounds }, () => kinds.map(timeOf))
    const best = (i: number) => Math.min(...times.map((round) => round[i]!))
    return Object.fromEntries(kinds.map((kind, i) => [kind, Math.round(operations / best(i) / 1e6)]))
  })

/** Measures the kinds of each product that has more than one. Needs the registered kernels. */
export const measureGemm = (): GemmTable =>
  Object.fromEntries(
    products.filter((product) => gemmKindsFor(product).length > 1).map((product) => [product, speedsOf(product)])
  )

/** The kinds from the most exact one on; a product of random numbers has errors of 0, 0.1, 0.2, 0.2 and 0.5 % in them. */
const byExactness = ['float32', 'int16', 'bfloat16', 'amxBfloat16', 'int8'] as const satisfies readonly GemmKind[]

/** The most exact kind of those that reach 90 % of the highest speed; short measurements differ by as much. */
export const chosenKind = (speeds: GemmSpeeds): GemmKind | undefined => {
  const fastest = Math.max(...Object.values(speeds))
  return byExactness.find((kind) => (speeds[kind] ?? Number.NaN) >= 0.9 * fastest)
}

const tablePath = (library: string): string => `${library}.gemm.json`

/** The table beside a library; undefined if there is none, or it is not for the kinds of this library. */
const readTable = (library: string): GemmTable | undefined => {
  try {
    const table = JSON.parse(readFileSync(tablePath(library), 'utf8')) as GemmTable
    const isComplete = products.every((product) => {
      const kinds = gemmKindsFor(product)
      return kinds.length < 2 || kinds.every((kind) => Number.isFinite(table[product]?.[kind]))
    })
    return isComplete ? table : undefined
  } catch {
    return undefined
  }
}

/** Measures once and keeps the table beside the library. A folder that cannot be written is measured at every start. */
const storedTable = async (library: string): Promise<GemmTable> => {
  const stored = readTable(library)
  if (stored) return stored
  const table = measureGemm()
  await writeAtomically(tablePath(library), JSON.stringify(table)).catch(() => undefined)
  return table
}

/**
 * Chooses the arithmetic of matrix products with many rows for each format of weights, and of attention: the kind that `INTERNVL_KERNEL` names,
 * where it exists for the product, else `chosenKind` of a measurement. The measurement runs once, and its table stays beside the library. Returns
 * an issue for a name that this processor cannot run.
 */
export const chooseGemmKinds = async (library: string, env: NodeJS.ProcessEnv): Promise<readonly Issue[]> => {
  const forced = env.INTERNVL_KERNEL || undefined
  if (forced !== undefined && !gemmKinds().includes(forced as GemmKind)) {
    const message = `INTERNVL_KERNEL=${forced}: this processor can run ${gemmKinds().join(', ')}`
    return [issue('UnknownKernel', message, { expected: gemmKinds(), actual: forced, fix: 'unset INTERNVL_KERNEL' })]
  }
  const table = forced === undefined ? await storedTable(library) : {}
  for (const product of products) {
    const kind = forced === undefined ? chosenKind(table[product] ?? {}) : (forced as GemmKind)
    if (kind && gemmKindsFor(product).includes(kind)) changeKernelSettings({ gemmKinds: { [product]: kind } })
  }
  return []
}

/** The kinds in use and the measured speeds; none without the loaded library. */
export const gemmChoices = (library: string): readonly GemmChoice[] => {
  const table = readTable(library)
  return products.flatMap((product) => {
    const kind = gemmKindOf(product)
    return kind ? [{ product, kind, gflops: table?.[product] ?? {} }] : []
  })
}
