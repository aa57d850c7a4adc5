import { tf } from '../../lib/tf.js'

/** Measured speed of the selected engine. */
export interface MachineSpeed {
  /** Floating-point operations a second of matrix products in float32. */
  readonly flops: number
  /** Bytes a second that a product of one row reads from float32 weights. */
  readonly bytesPerSecond: number
}

/** Seconds of the fastest of several runs, after one that warms up. */
const fastest = (runs: number, run: () => tf.Tensor): number => {
  let best = Number.POSITIVE_INFINITY
  for (let i = 0; i <= runs; i++) {
    const start = performance.now()
    const result = run()
    result.dataSync()
    const seconds = (performance.now() - start) / 1000
    result.dispose()
    if (i > 0) best = Math.min(best, seconds)
  }
  return best
}

/** Measures the selected engine in less than a second: a product of 256 rows, and one of a single row that reads 64 MiB. */
export const measureSpeed = (): MachineSpeed => {
  const [rows, side, width] = [256, 1024, 16384]
  const [x, square, row, wide] = [tf.ones([rows, side]), tf.ones([side, side]), tf.ones([1, side]), tf.ones([side, width])]
  try {
    const product = fastest(4, () => tf.matMul(x, square))
    const vector = fastest(4, () => tf.matMul(row, wide))
    return { flops: (2 * rows * side * side) / product, bytesPerSecond: (4 * side * width) / vector }
  } finally {
    tf.dispose([x, square, row, wide])
  }
}
