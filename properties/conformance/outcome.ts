import type { Numbers } from './case.js'

/** The outcome of one check: passed, failed with the difference, or skipped with the reason. */
export type Outcome =
  | { readonly _tag: 'Passed' }
  | { readonly _tag: 'Failed'; readonly message: string }
  | { readonly _tag: 'Skipped'; readonly message: string }

/** One check by name, `case/layout/input: value`. */
export interface Check {
  readonly name: string
  readonly outcome: Outcome
  /** Relative L2 distance from the expected value, for checks of precision. */
  readonly distance?: number
}

export const passed: Outcome = { _tag: 'Passed' }
export const failed = (message: string): Outcome => ({ _tag: 'Failed', message })
export const skipped = (message: string): Outcome => ({ _tag: 'Skipped', message })

/** Passes if `holds`. */
export const expectThat = (holds: boolean, message: () => string): Outcome => (holds ? passed : failed(message()))

const short = (x: unknown): string => {
  const text = JSON.stringify(x) ?? String(x)
  return text.length > 90 ? `${text.slice(0, 90)}…` : text
}

/** Passes if both values have the same JSON; otherwise reports the first index that differs. */
export const expectEqual = (actual: unknown, expected: unknown): Outcome => {
  if (JSON.stringify(actual) === JSON.stringify(expected)) return passed
  if (!Array.isArray(actual) || !Array.isArray(expected)) return failed(`got ${short(actual)}, expected ${short(expected)}`)
  const at = Array.from({ length: Math.max(actual.length, expected.length) }, (_, i) => i).find(
    (i) => JSON.stringify(actual[i]) !== JSON.stringify(expected[i])
  )!
  return failed(`at [${at}] got ${short(actual[at])}, expected ${short(expected[at])}`)
}

const indicesOf = (index: number, shape: readonly number[]): string => {
  const indices = shape.reduceRight<{ readonly rest: number; readonly out: readonly number[] }>(
    ({ rest, out }, n) => ({ rest: Math.floor(rest / n), out: [rest % n].concat(out) }),
    { rest: index, out: [] }
  )
  return `[${indices.out}]`
}

/** Passes if the largest difference is at most `tolerance` times the largest expected value; rows where `mask` is 0 are skipped. */
export const expectClose = (actual: Numbers, expected: Numbers, tolerance: number, mask?: Float32Array): Outcome => {
  if (`${actual.shape}` !== `${expected.shape}`) return failed(`shape [${actual.shape}], expected [${expected.shape}]`)
  const width = mask ? expected.values.length / mask.length : 1
  let [worst, at, scale] = [0, 0, 0]
  for (let i = 0; i < expected.values.length; i++) {
    if (mask && mask[Math.floor(i / width)] === 0) continue
    const difference = Math.abs(actual.values[i]! - expected.values[i]!)
    scale = Math.max(scale, Math.abs(expected.values[i]!))
    if (!(difference <= worst)) [worst, at] = [difference, i] // NaN counts as a difference
  }
  return expectThat(worst <= tolerance * scale, () => {
    const values = `got ${actual.values[at]}, expected ${expected.values[at]}`
    return `worst difference ${worst.toExponential(2)} (${(worst / scale).toExponential(2)} of the largest value) at ${indicesOf(at, expected.shape)}: ${values}`
  })
}

/** Passes if every difference is at most `tolerance`. */
export const expectWithin = (actual: readonly number[], expected: readonly number[], tolerance: number): Outcome => {
  if (actual.length !== expected.length) return failed(`${actual.length} numbers, expected ${expected.length}`)
  const differences = expected.map((x, i) => Math.abs(actual[i]! - x))
  const worst = differences.reduce((at, d, i) => (Number.isNaN(differences[at]) || d <= differences[at]! ? at : i), 0) // NaN counts as a difference
  const difference = differences[worst]!
  return expectThat(
    difference <= tolerance,
    () => `worst difference ${difference.toExponential(2)} at [${worst}]: got ${actual[worst]}, expected ${expected[worst]}`
  )
}
