import fc from 'fast-check'
import { tf } from '../../../lib/tf.js'
import { refuseNaN } from '../verdict.js'
import { fuzzKind } from './fuzz-kind.js'

export type Planted =
  | 'nothing'
  | 'range error'
  | 'crash'
  | 'hang'
  | 'silence'
  | 'memory'
  | 'type error'
  | 'late error'
  | 'nan'
  | 'leak'

const actions: Readonly<Record<Planted, () => unknown>> = {
  nothing: () => undefined,
  'range error': () => {
    throw new RangeError('size: expected 1 or more, got 0')
  },
  crash: () => process.kill(process.pid, 'SIGSEGV'),
  hang: () => {
    while (true);
  },
  silence: () => new Promise(() => setInterval(() => undefined, 1000)),
  memory: () => {
    const buffers: Buffer[] = []
    while (true) buffers.push(Buffer.alloc(2 ** 24, 1))
  },
  'type error': () => (undefined as unknown as { x: number }).x,
  'late error': async () => {
    setTimeout(() => Promise.reject(new Error('late')), 1)
    await new Promise((resolve) => setTimeout(resolve, 50))
  },
  nan: () => refuseNaN('values', [1, Number.NaN]),
  leak: () => tf.zeros([2])
}

/** Inputs that break each promise on purpose, for the tests of the fuzzer itself. */
export const plantedKind = fuzzKind<{ readonly list: readonly Planted[] }>({
  name: 'planted',
  arbitrary: fc.record({ list: fc.array(fc.constantFrom<Planted>('nothing', 'type error'), { maxLength: 8 }) }),
  run: async ({ list }) => {
    for (const name of list) await actions[name]()
    return true
  }
})
