import { enums } from './schema-types.js'

/** An axis of a shape: a letter's index, size one, or the product of two letters. */
type Axis = number | 'one' | readonly [first: number, second: number]

/** One of the shapes that an input may have. */
export interface Pattern {
  /** Whether any number of leading axes precedes `axes`. */
  readonly leading: boolean
  readonly axes: readonly Axis[]
}

/** Index of an axis letter. */
export const letter = (name: string): number => name.charCodeAt(0) - 65
/** Whether a name is an axis letter. */
export const isLetter = (name: string): boolean => /^[A-Z]$/.test(name)

/** Patterns of a shape as the schema writes it: `'... K'`, `'B H L K | B L (H K)'`. */
export const parseShape = (shape: string): readonly Pattern[] =>
  shape.split('|').map((text) => {
    const tokens = text.match(/\.\.\.|1|\([A-Z] [A-Z]\)|[A-Z]/g) ?? []
    const axes = tokens
      .filter((token) => token !== '...')
      .map((token): Axis => {
        if (token === '1') return 'one'
        return token.length === 1 ? letter(token) : [letter(token.charAt(1)), letter(token.charAt(3))]
      })
    return { leading: tokens[0] === '...', axes }
  })

/** Number of 32-bit words of a row of `columns` weights, by the number of the format; cpu/quantization/format.h defines the same. */
const packedColumns = (format: number, columns: number): number => {
  if (format === 0) return columns
  if (format === 1) return Math.ceil(columns / 2)
  return Math.ceil(columns / 64) * [17, 13, 9][format - 2]!
}

/** Sizes of the axes of one call, -1 while unknown, and the leading axes that `...` stands for. */
export class Axes {
  readonly sizes: number[] = new Array(26).fill(-1)
  private shape: readonly number[] | undefined
  private count = 0

  reset(): void {
    this.sizes.fill(-1)
    this.shape = undefined
  }

  /** Whether an axis has this size, which it gets if it had none. */
  bind(axis: number, size: number): boolean {
    const { sizes } = this
    if (sizes[axis]! < 0) sizes[axis] = size
    return sizes[axis] === size
  }

  private bindLeading(shape: readonly number[], count: number): boolean {
    if (!this.shape) {
      this.shape = shape
      this.count = count
      return true
    }
    if (count !== this.count) return false
    for (let i = 0; i < count; i++) if (shape[i] !== this.shape[i]) return false
    return true
  }

  private bindProduct([first, second]: readonly [number, number], size: number): boolean {
    const { sizes } = this
    const [a, b] = [sizes[first]!, sizes[second]!]
    if (a < 0) return false
    if (b >= 0) return size === a * b
    return a > 0 && size % a === 0 && this.bind(second, size / a)
  }

  /** Size of an axis that is known already. */
  private known(axis: Axis): number {
    if (axis === 'one') return 1
    return typeof axis === 'number' ? this.sizes[axis]! : this.sizes[axis[0]]! * this.sizes[axis[1]]!
  }

  /** Whether a shape matches; `format` is the number of the quantization format of the last axis. */
  matches({ leading, axes }: Pattern, shape: readonly number[], format: number): boolean {
    const before = shape.length - axes.length
    if (leading ? before < 0 || !this.bindLeading(shape, before) : before !== 0) return false
    for (let i = 0; i < axes.length; i++) {
      const [axis, size] = [axes[i]!, shape[before + i]!]
      if (format > 0 && i === axes.length - 1) return size === packedColumns(format, this.known(axis))
      if (axis === 'one' ? size !== 1 : typeof axis === 'number' ? !this.bind(axis, size) : !this.bindProduct(axis, size))
        return false
    }
    return true
  }

  /** The axis in words: its letter, and its size if known. */
  private describeAxis(axis: Axis): string {
    if (axis === 'one') return '1'
    if (typeof axis !== 'number') return axis.map((factor) => this.describeAxis(factor)).join(' · ')
    const [name, size] = [String.fromCharCode(65 + axis), this.sizes[axis]!]
    return size < 0 ? name : `${name} = ${size}`
  }

  describe(patterns: readonly Pattern[], format: number): string {
    const leading = this.shape ? this.shape.slice(0, this.count).map(String) : ['…']
    return patterns
      .map((pattern) => {
        const axes = pattern.axes.map((axis) => this.describeAxis(axis))
        if (format > 0) axes.push(`${axes.pop()}, packed as ${enums.Format[format]}`)
        return `[${[...(pattern.leading ? leading : []), ...axes].join(', ')}]`
      })
      .join(' or ')
  }
}
