import { load } from '../../../generation/checkpoint/load.js'
import { generate } from '../../../generation/decoding/generate.js'
import { tf } from '../../../lib/tf.js'
import { aligned } from '../report/table.js'
import { pictureInputs } from './inputs.js'
import type { Job } from './measure.js'
import { precisions } from './precisions.js'

/** Calls of one kind of op and their own time: what other ops took inside them counts as theirs. */
export interface OpTime {
  readonly op: string
  readonly calls: number
  readonly ms: number
}

/** A stretch of work: all of it, and its ops, the longest first. What the ops leave is JavaScript and waiting for numbers. */
export interface Section {
  readonly name: string
  readonly ms: number
  readonly ops: readonly OpTime[]
}

export interface Profile {
  readonly engine: string
  readonly dtype: string
  readonly tiles: number
  readonly sections: readonly Section[]
}

interface Kernel {
  kernelFunc: tf.KernelConfig['kernelFunc']
}

/** Times every op of the engine from now on; the function that comes back stops it and says what was counted. */
const watchOps = (): (() => readonly OpTime[]) => {
  const counted = new Map<string, { calls: number; ms: number }>()
  const inner = [0] // time of ops inside each op that is running
  const originals = tf.getKernelsForBackend(tf.getBackend()).map((kernel) => {
    const { kernelName, kernelFunc } = kernel
    ;(kernel as Kernel).kernelFunc = (given) => {
      const begun = performance.now()
      inner.push(0)
      try {
        return kernelFunc(given)
      } finally {
        const all = performance.now() - begun
        const own = all - inner.pop()!
        inner[inner.length - 1]! += all
        const { calls, ms } = counted.get(kernelName) ?? { calls: 0, ms: 0 }
        counted.set(kernelName, { calls: calls + 1, ms: ms + own })
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

/** Runs a stretch of work with its ops timed. */
export const watched = async (name: string, work: () => unknown): Promise<Section> => {
  const stop = watchOps()
  const begun = performance.now()
  let ms = 0
  let ops: readonly OpTime[] = []
  try {
    await work()
  } finally {
    ms = performance.now() - begun
    ops = stop()
  }
  return { name, ms, ops }
}

/** Vision, the prompt and the steps after it, each once warm. */
export const profile = async ({ checkpoint, precision, size, newTokens }: Job): Promise<Profile> => {
  const internvl = await load(checkpoint, precisions[precision])
  const { model, config, engine } = internvl
  const { inputIds, pixelValues } = pictureInputs(config, size)
  const imageFeatures = model.imageFeatures(pixelValues!)
  const options = { maxNewTokens: newTokens + 1, eosTokenIds: [] }
  try {
    for await (const _ of generate(model, { inputIds, imageFeatures }, { ...options, maxNewTokens: 2 })); // warm
    const vision = await watched('vision', () => tf.tidy(() => void model.imageFeatures(pixelValues!).sum().dataSync()))
    const steps = generate(model, { inputIds, imageFeatures }, options)
    const prefill = await watched('prefill, without vision', () => steps.next())
    const decode = await watched(`decode, ${newTokens} tokens`, async () => {
      while (!(await steps.next()).done);
    })
    return { engine: engine.name, dtype: precision, tiles: size, sections: [vision, prefill, decode] }
  } finally {
    tf.dispose([inputIds, pixelValues!, imageFeatures])
    internvl.dispose()
  }
}

const SHOWN = 12

/** A section as a table: its longest ops, the others together, and what no op accounts for. */
const sectionTable = ({ name, ms, ops }: Section): string => {
  const sum = (some: readonly OpTime[]) =>
    some.reduce((all, op) => ({ op: `${some.length} more`, calls: all.calls + op.calls, ms: all.ms + op.ms }), {
      op: '',
      calls: 0,
      ms: 0
    })
  const rest = ops.slice(SHOWN)
  const outside = { op: 'outside ops (JavaScript, dispatch, reading back)', calls: 0, ms: ms - sum(ops).ms }
  const rows = [...ops.slice(0, SHOWN), ...(rest.length > 0 ? [sum(rest)] : []), outside]
  return aligned([
    [name, 'calls', 'ms', 'share'],
    ...rows.map((row) => [row.op, row.calls ? `${row.calls}` : '', row.ms.toFixed(1), `${((100 * row.ms) / ms).toFixed(1)} %`]),
    ['all', `${sum(ops).calls}`, ms.toFixed(1), '']
  ])
}

export const profileTable = ({ engine, dtype, tiles, sections }: Profile): string =>
  [`${engine} ${dtype}, ${tiles} tile${tiles === 1 ? '' : 's'}`, ...sections.map(sectionTable)].join('\n\n')
