import type { Numbers } from './case.js'

/** The outcome of one check: right, wrong with how and where, or not made with the reason. */
export type Outcome =
  | { readonly _tag: 'Passed' }
  | { readonly _tag: 'Failed'; readonly says: string }
  | { readonly _tag: 'Skipped'; readonly says: string }

/** One check by name, `case/layout/input: what`. */
export interface Check {
  readonly name: string
  readonly outcome: Outcome
  /** Relative L2 distance from what is expected, where that is what the check is about. */
  readonly apart?: number
}

export const passed: Outcome = { _tag: 'Passed' }
export const failed = (says: string): Outcome => ({ _tag: 'Failed', says })
export const skipped = (says: string): Outcome => ({ _tag: 'Skipped', says })

/** Right when `holds`. */
export const expectThat = (holds: boolean, says: () => string): Outcome => (holds ? passed : failed(says()))

const short = (x: unknown): string => {
  const text = JSON.stringify(x) ?? String(x)
  return text.length > 90 ? `${text.slice(0, 90)}…` : text
}

/** Right when both are the same JSON; else says where lists first differ. */
export const expectEqual = (actual: unknown, expected: unknown): Outcome => {
  if (JSON.stringify(actual) === JSON.stringify(expected)) return passed
  if (!Array.isArray(actual) || !Array.isArray(expected)) return failed(`got ${short(actual)}, expected ${short(expected)}`)
  const at = Array.from({ length: Math.max(actual.length, expected.length) }, (_, i) => i).find(
    (i) => JSON.stringify(actual[i]) !== JSON.stringify(expected[i])
  )!
  return failed(`at [${at}] got ${short(actual[at])}, expected ${short(expected[at])}`)
}

const place = (index: number, shape: readonly number[]): string => {
  const indices = shape.reduceRight<{ readonly rest: number; readonly out: readonly number[] }>(
    ({ rest, out }, n) => ({ rest: Math.floor(rest / n), out: [rest % n].concat(out) }),
    { rest: index, out: [] }
  )
  return `[${indices.out}]`
}

/** Right when the greatest difference is at most `tolerance` times the greatest expected number; rows where `seen` is 0 do not count. */
export const expectClose = (actual: Numbers, expected: Numbers, tolerance: number, seen?: Float32Array): Outcome => {
  if (`${actual.shape}` !== `${expected.shape}`) return failed(`shape [${actual.shape}], expected [${expected.shape}]`)
  const width = seen ? expected.values.length / seen.length : 1
  let [worst, at, scale] = [0, 0, 0]
  for (let i = 0; i < expected.values.length; i++) {
    if (seen && seen[Math.floor(i / width)] === 0) continue
    const difference = Math.abs(actual.values[i]! - expected.values[i]!)
    scale = Math.max(scale, Math.abs(expected.values[i]!))
    if (!(difference <= worst)) [worst, at] = [difference, i] // also NaN
  }
  return expectThat(worst <= tolerance * scale, () => {
    const values = `got ${actual.values[at]}, expected ${expected.values[at]}`
    return `worst difference ${worst.toExponential(2)} (${(worst / scale).toExponential(2)} of the greatest) at ${place(at, expected.shape)}: ${values}`
  })
}

/** Right when every difference is at most `tolerance`. */
export const expectWithin = (actual: readonly number[], expected: readonly number[], tolerance: number): Outcome => {
  if (actual.length !== expected.length) return failed(`${actual.length} numbers, expected ${expected.length}`)
  const differences = expected.map((x, i) => Math.abs(actual[i]! - x))
  const worst = differences.reduce((at, d, i) => (Number.isNaN(differences[at]) || d <= differences[at]! ? at : i), 0) // also NaN
  const difference = differences[worst]!
  return expectThat(
    difference <= tolerance,
    () => `worst difference ${difference.toExponential(2)} at [${worst}]: got ${actual[worst]}, expected ${expected[worst]}`
  )
}
