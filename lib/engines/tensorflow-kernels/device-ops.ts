import { sizeOf } from '../../shape.js'
import type { tf } from '../../tf.js'
import { attr, type NativeBackend, type OpAttr, type TensorHandle, tfType } from '../native.js'

/** TensorFlow's types by name. */
export type DeviceType = keyof typeof tfType

/** Types with 16 bits, in which matrix products run with float32 sums. */
export type HalfType = 'bfloat16' | 'float16'

/** A tensor of TensorFlow, in any of its types, that lives until the end of `onDevice`. */
export type DeviceTensor = TensorHandle

/**
 * TensorFlow's ops on tensors of any type. Outputs stay on the device; only shapes, axes and other small integers come from the host. Each op
 * here has a kernel for CUDA (properties/lib/engines/tensorflow-kernels/cuda-kernels.json).
 */
export interface DeviceOps {
  /** The tensor of TensorFlow.js, which keeps its ownership. */
  readonly of: (t: tf.TensorInfo) => DeviceTensor
  /** The same numbers in another type; the same tensor if it has that type already. */
  readonly cast: (x: DeviceTensor, type: DeviceType) => DeviceTensor
  /** The same bits as another type, without a copy. A smaller type adds an axis, a larger one takes the last axis. */
  readonly bitcast: (x: DeviceTensor, type: DeviceType) => DeviceTensor
  /** Another shape of the same memory, without a copy. */
  readonly reshape: (x: DeviceTensor, shape: readonly number[]) => DeviceTensor
  readonly transpose: (x: DeviceTensor, axes: readonly number[]) => DeviceTensor
  readonly slice: (x: DeviceTensor, begin: readonly number[], size: readonly number[]) => DeviceTensor
  /** Entries `[from, to)` of the last axis. */
  readonly lastAxis: (x: DeviceTensor, from: number, to: number) => DeviceTensor
  readonly concat: (xs: readonly DeviceTensor[], axis: number) => DeviceTensor
  /** Rows of `x` `[N, …]` at int32 indices. */
  readonly gather: (x: DeviceTensor, indices: DeviceTensor) => DeviceTensor
  /** Writes rows into `x` `[N, …]` in place: every tensor of the same memory changes. */
  readonly updateRows: (x: DeviceTensor, indices: DeviceTensor, rows: DeviceTensor) => void
  /** `x yᵀ` over the last two axes, or `x y`; leading axes are batches. Sums are in float32. */
  readonly matMul: (x: DeviceTensor, y: DeviceTensor, transposes?: { readonly x?: boolean; readonly y?: boolean }) => DeviceTensor
  readonly softmax: (x: DeviceTensor) => DeviceTensor
  /** An elementwise op of one or two tensors of one type, with broadcasting: `AddV2`, `Mul`, `BitwiseAnd`, … */
  readonly elementwise: (op: string, ...inputs: readonly DeviceTensor[]) => DeviceTensor
  /** A constant, kept between calls under its key. A constant of another key may be dropped for it. */
  readonly constant: (
    key: string,
    make: () => readonly [shape: readonly number[], values: Float32Array | Int32Array | Uint8Array]
  ) => DeviceTensor
  /** A tensor computed once and kept between calls under its key: a mask, which all layers share. Only the newest few are kept. */
  readonly computed: (key: string, make: () => DeviceTensor) => DeviceTensor
}

/** Constants by key; the oldest of more than `capacity` is released. */
const constantStore = (native: NativeBackend, capacity: number) => {
  const entries = new Map<string, TensorHandle>()
  return (key: string, make: () => TensorHandle): TensorHandle => {
    const known = entries.get(key)
    if (known) {
      entries.delete(key) // the newest is the last
      entries.set(key, known)
      return known
    }
    const made = make()
    entries.set(key, made)
    const [oldest] = entries.keys()
    if (entries.size > capacity) {
      native.release(entries.get(oldest!)!)
      entries.delete(oldest!)
    }
    return made
  }
}

const typeNames = new Map<number, DeviceType>(Object.entries(tfType).map(([name, number]) => [number, name as DeviceType]))

/** The type of a tensor. */
export const typeOf = ({ dtype }: DeviceTensor): DeviceType => typeNames.get(dtype) as DeviceType

/** Number of small constants that are kept; masks are kept apart, because they are large. */
const [maxConstants, maxComputed] = [4096, 8]

/**
 * A function that runs `f` on the ops, releases the tensors that `f` made, and returns those that `f` returns as tensors of TensorFlow.js (float32 or int32).
 */
export const deviceRunner = (native: NativeBackend) => {
  const constants = constantStore(native, maxConstants)
  const computed = constantStore(native, maxComputed)
  return (f: (ops: DeviceOps) => DeviceTensor | readonly DeviceTensor[]): tf.Tensor[] => {
    const made = new Map<number, TensorHandle>()
    const run = (name: string, attrs: readonly OpAttr[], inputs: readonly DeviceTensor[]): DeviceTensor => {
      const [output] = native.run(
        name,
        attrs,
        inputs.map(({ id }) => id)
      )
      made.set(output!.id, output!)
      return output!
    }
    const ints = (values: readonly number[]): DeviceTensor =>
      constants(`int32 ${values}`, () => native.create([values.length], Int32Array.from(values)))
    const int = (value: number): DeviceTensor => constants(`int32 scalar ${value}`, () => native.create([], Int32Array.of(value)))
    const T = (x: DeviceTensor): OpAttr => attr.type('T', typeOf(x))
    const index = (name: string): OpAttr => attr.type(name, 'int32')
    const slice: DeviceOps['slice'] = (x, begin, size) => {
      if (begin.every((at, i) => at === 0 && size[i] === x.shape[i])) return x
      const end = begin.map((at, i) => at + size[i]!)
      const masks = ['begin_mask', 'end_mask', 'ellipsis_mask', 'new_axis_mask', 'shrink_axis_mask'].map((name) =>
        attr.int(name, 0)
      )
      return run('StridedSlice', [T(x), index('Index'), ...masks], [x, ints(begin), ints(end), ints(begin.map(() => 1))])
    }
    const ops: DeviceOps = {
      of: (t) => ({ id: native.handles([t])[0]!, shape: t.shape, dtype: t.dtype === 'int32' ? tfType.int32 : tfType.float32 }),
      cast: (x, type) =>
        typeOf(x) === type
          ? x
          : run('Cast', [attr.type('SrcT', typeOf(x)), attr.type('DstT', type), attr.bool('Truncate', false)], [x]),
      bitcast: (x, type) => (typeOf(x) === type ? x : run('Bitcast', [T(x), attr.type('type', type)], [x])),
      reshape: (x, shape) => (`${x.shape}` === `${shape}` ? x : run('Reshape', [T(x), index('Tshape')], [x, ints(shape)])),
      transpose: (x, axes) => run('Transpose', [T(x), index('Tperm')], [x, ints(axes)]),
      slice,
      lastAxis: (x, from, to) => {
        const start = x.shape.map(() => 0)
        return slice(x, [...start.slice(1), from], [...x.shape.slice(0, -1), to - from])
      },
      concat: (xs, axis) =>
        xs.length === 1 ? xs[0]! : run('ConcatV2', [attr.int('N', xs.length), T(xs[0]!), index('Tidx')], [...xs, int(axis)]),
      gather: (x, indices) =>
        run(
          'GatherV2',
          [attr.int('batch_dims', 0), attr.type('Tparams', typeOf(x)), index('Tindices'), index('Taxis')],
          [x, indices, int(0)]
        ),
      updateRows: (x, indices, rows) => void run('InplaceUpdate', [T(x)], [x, indices, rows]),
      matMul: (x, y, transposes = {}) =>
        run(
          'BatchMatMulV2',
          [T(x), attr.bool('adj_x', transposes.x ?? false), attr.bool('adj_y', transposes.y ?? false)],
          [x, y]
        ),
      softmax: (x) => run('Softmax', [T(x)], [x]),
      elementwise: (op, ...inputs) => run(op, [T(inputs[0]!)], inputs),
      constant: (key, make) => constants(key, () => native.create(...make())),
      computed: (key, make) =>
        computed(key, () => {
          const result = make()
          made.delete(result.id)
          return result
        })
    }
    try {
      return [f(ops)].flat().map((result) => {
        // a tensor that someone else owns is returned as a second tensor of the same memory
        const owned = made.has(result.id) ? result : run('Bitcast', [T(result), attr.type('type', typeOf(result))], [result])
        made.delete(owned.id)
        return native.tensor(owned)
      })
    } finally {
      native.release(...made.values())
    }
  }
}

/** `onDevice` of a backend: runs a function on the ops. */
export type OnDevice = ReturnType<typeof deviceRunner>

/** Number of rows of `columns` numbers in a tile of at most `most` numbers, at least one. */
export const tileRows = (columns: number, most: number): number => Math.max(1, Math.floor(most / Math.max(1, columns)))

/** Start and size of each tile of `rows` rows. */
export const tiles = (total: number, rows: number): ReadonlyArray<readonly [start: number, size: number]> =>
  Array.from({ length: Math.ceil(total / rows) }, (_, i) => [i * rows, Math.min(rows, total - i * rows)] as const)

/** `[…, D] → [N, D]`, with N the product of the leading axes. */
export const asRows = (ops: DeviceOps, x: DeviceTensor): DeviceTensor => {
  const D = x.shape.at(-1)!
  return ops.reshape(x, [sizeOf(x.shape.slice(0, -1)), D])
}
