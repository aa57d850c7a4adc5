import { readFileSync } from 'node:fs'
import { type Issue, issue } from '../../error.js'
import { runKernel } from '../../ops/kernel.js'
import { tf } from '../../tf.js'
import { writeAtomically } from '../install/file-trust.js'
import { changeKernelSettings, type GemmKind, gemmKindOf, gemmKinds, gemmKindsFor, type WeightFormat, withKernelSettings } from './settings.js' // biome-ignore format: one line

/** Speed of a matrix product with many rows in each kind of arithmetic that the processor can run, in GFLOP/s. */
export type GemmSpeeds = { readonly [K in GemmKind]?: number }

/** Speeds for each format of weights. */
export type GemmTable = { readonly [F in WeightFormat]?: GemmSpeeds }

/** The kind for one format of weights, and the measured speeds, if there are any. */
export interface GemmChoice {
  readonly format: WeightFormat
  readonly kind: GemmKind
  readonly gflops: GemmSpeeds
}

const formats = ['bfloat16', 'int8', 'int6', 'int4'] as const satisfies readonly WeightFormat[]

/** `[M, K] x [K, N]`: the shape that is measured, a few milliseconds. */
const [M, K, N, rounds] = [256, 1024, 512, 7]

/** Best time in milliseconds of each kind; the kinds take turns, so that a busy moment of the machine is not one kind's alone. */
const bestTimes = (format: WeightFormat, kinds: readonly GemmKind[]): readonly number[] =>
  tf.tidy(() => {
    const [x, w] = [tf.randomNormal([M, K]), tf.randomNormal([N, K])]
    const weight = runKernel<tf.Tensor>('QuantizeWeight', { x: w }, { format })
    const timeOf = (kind: GemmKind): number =>
      withKernelSettings({ gemmKinds: { [format]: kind } }, () => {
        const start = performance.now()
        tf.dispose(runKernel('QuantizedLinear', { x, weight }, { format }))
        return performance.now() - start
      })
    const times = Array.from({ length: rounds }, () => kinds.map(timeOf))
    return kinds.map((_, i) => Math.min(...times.map((round) => round[i]!)))
  })

/** Measures the kinds of each format that has more than one. Needs the registered kernels. */
export const measureGemm = (): GemmTable => {
  const speedsOf = (format: WeightFormat): GemmSpeeds => {
    const kinds = gemmKindsFor(format)
    const times = bestTimes(format, kinds)
    return Object.fromEntries(kinds.map((kind, i) => [kind, Math.round((2 * M * K * N) / times[i]! / 1e6)]))
  }
  return Object.fromEntries(
    formats.filter((format) => gemmKindsFor(format).length > 1).map((format) => [format, speedsOf(format)])
  )
}

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
    const isComplete = formats.every((format) => {
      const kinds = gemmKindsFor(format)
      return kinds.length < 2 || kinds.every((kind) => Number.isFinite(table[format]?.[kind]))
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
 * Chooses the arithmetic of matrix products with many rows for each format of weights: the kind that `INTERNVL_KERNEL` names, where it
 * exists for the format, else `chosenKind` of a measurement. The measurement runs once, and its table stays beside the library. Returns an
 * issue for a name that this processor cannot run.
 */
export const chooseGemmKinds = async (library: string, env: NodeJS.ProcessEnv): Promise<readonly Issue[]> => {
  const forced = env.INTERNVL_KERNEL || undefined
  if (forced !== undefined && !gemmKinds().includes(forced as GemmKind)) {
    const message = `INTERNVL_KERNEL=${forced}: this processor can run ${gemmKinds().join(', ')}`
    return [issue('UnknownKernel', message, { expected: gemmKinds(), actual: forced, fix: 'unset INTERNVL_KERNEL' })]
  }
  const table = forced === undefined ? await storedTable(library) : {}
  for (const format of formats) {
    const kind = forced === undefined ? chosenKind(table[format] ?? {}) : (forced as GemmKind)
    if (kind && gemmKindsFor(format).includes(kind)) changeKernelSettings({ gemmKinds: { [format]: kind } })
  }
  return []
}

/** The kinds in use and the measured speeds; none without the loaded library. */
export const gemmChoices = (library: string): readonly GemmChoice[] => {
  const table = readTable(library)
  return formats.flatMap((format) => {
    const kind = gemmKindOf(format)
    return kind ? [{ format, kind, gflops: table?.[format] ?? {} }] : []
  })
}
