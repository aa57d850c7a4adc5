import { tf } from '../../../lib/tf.js'

/** Calls of one op and their self time: the time of nested ops is not included. */
export interface OpTime {
  readonly op: string
  readonly calls: number
  readonly ms: number
}

interface Kernel {
  kernelFunc: tf.KernelConfig['kernelFunc']
}

/** Starts timing every op of the engine; the returned function stops the timing and returns the counts. */
export const watchOps = (): (() => readonly OpTime[]) => {
  const counted = new Map<string, { calls: number; ms: number }>()
  const nested = [0] // time of the ops nested in every running op
  const originals = tf.getKernelsForBackend(tf.getBackend()).map((kernel) => {
    const { kernelName, kernelFunc } = kernel
    ;(kernel as Kernel).kernelFunc = (given) => {
      const start = performance.now()
      nested.push(0)
      try {
        return kernelFunc(given)
      } finally {
        const total = performance.now() - start
        const self = total - nested.pop()!
        nested[nested.length - 1]! += total
        const { calls, ms } = counted.get(kernelName) ?? { calls: 0, ms: 0 }
        counted.set(kernelName, { calls: calls + 1, ms: ms + self })
      }
    }
    return () => {
      ;(kernel as Kernel).kernelFunc = kernelFunc
    }
  })
  return () => {
    for (const restore of originals) restore()
    return [...counted].map(([op, times]) => ({ op, ...times })).sort((a, b) => b.ms - a.ms)
  }
}
