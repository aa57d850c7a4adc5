import { type DeviceOps, type DeviceTensor, tileRows, tiles, typeOf } from './device-ops.js'

/** Additive mask value, as lib/nn/attention/attention.ts has it. */
const maskedScore = -1e9

/** Scores that are computed at a time: 64 Mi, 256 MiB in float32. */
const maxScores = 64 * 2 ** 20

/** Masks of attention over `S` keys, of which the first `length` exist. */
export interface DeviceMask {
  readonly length: number
  /** A query attends to keys up to its own position; the last query is key `length - 1`. */
  readonly causal: boolean
  /** 0 for no window. */
  readonly window: number
  /** Additive, `[B or 1, 1, 1, length or more]`. */
  readonly padding?: DeviceTensor | undefined
  /** `[H]` */
  readonly sinks?: DeviceTensor | undefined
}

const shapeOf = (x: DeviceTensor): readonly [number, number, number, number] =>
  x.shape as unknown as readonly [number, number, number, number]

const scalar = (ops: DeviceOps, value: number): DeviceTensor =>
  ops.constant(`float32 ${value}`, () => [[], Float32Array.of(value)])

/** `[1, 1, size, 1]` or `[1, 1, 1, size]`: `from`, `from + 1`, … */
const positions = (ops: DeviceOps, from: number, size: number, isRow: boolean): DeviceTensor =>
  ops.reshape(
    ops.constant(`positions ${from} ${size}`, () => [[size], Float32Array.from({ length: size }, (_, i) => from + i)]),
    isRow ? [1, 1, size, 1] : [1, 1, 1, size]
  )

/** Additive mask `[1, 1, rows, S]` of queries at positions from `from` on; undefined where every key is attended to. */
const positionMask = (
  ops: DeviceOps,
  { length, causal, window }: DeviceMask,
  from: number,
  rows: number,
  S: number
): DeviceTensor | undefined => {
  const hidden = causal ? from + 1 < S || (window > 0 && from + rows > window) : length < S
  if (!hidden) return undefined
  return ops.computed(`mask ${causal} ${window} ${length} ${from} ${rows} ${S}`, () => {
    const column = positions(ops, 0, S, false)
    const masked = (condition: DeviceTensor) => ops.elementwise('Mul', ops.cast(condition, 'float32'), scalar(ops, maskedScore))
    if (!causal) return masked(ops.elementwise('GreaterEqual', column, scalar(ops, length)))
    const row = positions(ops, from, rows, true)
    const future = masked(ops.elementwise('Greater', column, row))
    if (window === 0) return future
    const last = ops.elementwise('Sub', row, scalar(ops, window))
    return ops.elementwise('Minimum', future, masked(ops.elementwise('LessEqual', column, last)))
  })
}

/** The additive mask of padding for `S` keys, zero beyond those it has. */
const paddingOf = (ops: DeviceOps, padding: DeviceTensor, length: number, S: number): DeviceTensor => {
  const M = padding.shape[0]!
  const known = ops.slice(padding, [0, 0, 0, 0], [M, 1, 1, Math.min(length, S)])
  if (length >= S) return known
  const free = S - length
  return ops.concat([known, ops.constant(`zeros ${M} ${free}`, () => [[M, 1, 1, free], new Float32Array(M * free)])], 3)
}

/** Softmax over the last axis in float32; with sinks one more column, which is then dropped. */
const softmax = (ops: DeviceOps, scores: DeviceTensor, sinks: DeviceTensor | undefined): DeviceTensor => {
  if (!sinks) return ops.softmax(scores)
  const [B, H, L, S] = shapeOf(scores)
  const zeros = ops.constant(`zeros4 ${B} ${L}`, () => [[B, 1, L, 1], new Float32Array(B * L)])
  const column = ops.elementwise('AddV2', zeros, ops.reshape(sinks, [1, H, 1, 1]))
  return ops.lastAxis(ops.softmax(ops.concat([scores, column], 3)), 0, S)
}

/** Attention of one block of queries `[B, H, L, K]`, the first at position `from`. Products in the type of the keys. */
const attendBlock = (
  ops: DeviceOps,
  q: DeviceTensor,
  k: DeviceTensor,
  v: DeviceTensor,
  mask: DeviceMask,
  from: number
): DeviceTensor => {
  const [[B, H, L, K], [, G, S]] = [shapeOf(q), shapeOf(k)]
  // grouped queries: the H/G heads that share a key become further rows, so that no key or value is copied
  const grouped = ops.reshape(q, [B, G, (H / G) * L, K])
  let scores = ops.reshape(ops.cast(ops.matMul(grouped, k, { y: true }), 'float32'), [B, H, L, S])
  const position = positionMask(ops, mask, from, L, S)
  if (position) scores = ops.elementwise('AddV2', scores, position)
  if (mask.padding) scores = ops.elementwise('AddV2', scores, paddingOf(ops, mask.padding, mask.length, S))
  const weights = ops.cast(softmax(ops, scores, mask.sinks), typeOf(k))
  const out = ops.matMul(ops.reshape(weights, [B, G, (H / G) * L, S]), v)
  return ops.cast(ops.reshape(out, [B, H, L, v.shape[3]!]), 'float32')
}

/**
 * `softmax(q kᵀ · scale + mask) v`: queries `[B, H, L, K]` in float32, keys and values `[B, G, S, K]`, result `[B, H, L, K]` in float32.
 * Products are in the type of keys and values, softmax in float32. Queries are taken in blocks, so that memory grows linearly with length.
 */
export const attendOnDevice = (
  ops: DeviceOps,
  q: DeviceTensor,
  k: DeviceTensor,
  v: DeviceTensor,
  scale: number,
  mask: DeviceMask
): DeviceTensor => {
  const [B, H, L, K] = shapeOf(q)
  const [, G, S] = shapeOf(k)
  const scaled = ops.cast(ops.elementwise('Mul', q, scalar(ops, scale)), typeOf(k))
  const blocks = tiles(L, tileRows(B * H * S, maxScores)).map(([start, rows]) => {
    const from = mask.length - L + start
    // while decoding, the free capacity is masked: taking the used keys out would copy all of them
    const visible = L === 1 ? S : mask.causal ? from + rows : mask.length
    const upTo = (t: DeviceTensor) => ops.slice(t, [0, 0, 0, 0], [B, G, visible, t.shape[3]!])
    return attendBlock(ops, ops.slice(scaled, [0, 0, start, 0], [B, H, rows, K]), upTo(k), upTo(v), mask, from)
  })
  return ops.concat(blocks, 2)
}

/** `[B, L, H·K] → [B, L, H, K]`. */
const heads = (ops: DeviceOps, x: DeviceTensor, H: number): DeviceTensor => {
  const [B, L, D] = x.shape as [number, number, number]
  return ops.reshape(x, [B, L, H, D / H])
}

/** `[B, L, H, K] ↔ [B, H, L, K]`. */
const swapHeads = (ops: DeviceOps, x: DeviceTensor): DeviceTensor => {
  const [B, a, b, K] = shapeOf(x)
  return a === 1 || b === 1 ? ops.reshape(x, [B, b, a, K]) : ops.transpose(x, [0, 2, 1, 3])
}

/** `[B, L, H·K] → [B, H, L, K]`. */
export const splitOnDevice = (ops: DeviceOps, x: DeviceTensor, H: number): DeviceTensor => swapHeads(ops, heads(ops, x, H))

/** `[B, H, L, K] → [B, L, H·K]`. */
export const mergeOnDevice = (ops: DeviceOps, x: DeviceTensor): DeviceTensor => {
  const [B, H, L, K] = shapeOf(x)
  return ops.reshape(swapHeads(ops, x), [B, L, H * K])
}

/** Rotates the first R entries of each head of `x` `[B, H, L, K]` by tables `[B or 1, 1, L, R]`. Source: `applyRope` of lib/nn/rope.ts. */
export const ropeOnDevice = (ops: DeviceOps, x: DeviceTensor, cos: DeviceTensor, sin: DeviceTensor): DeviceTensor => {
  const [K, R] = [x.shape[3]!, cos.shape[3]!]
  const rotated = ops.lastAxis(x, 0, R)
  const half = [ops.lastAxis(x, R / 2, R), ops.lastAxis(x, 0, R / 2)] as const
  const turned = ops.concat([ops.elementwise('Neg', half[0]), half[1]], 3)
  const y = ops.elementwise('AddV2', ops.elementwise('Mul', rotated, cos), ops.elementwise('Mul', turned, sin))
  return R === K ? y : ops.concat([y, ops.lastAxis(x, R, K)], 3)
}
