import { generate } from '../../../generation/decoding/generate.js'
import { tf } from '../../../lib/tf.js'
import { aligned } from '../report/table.js'
import { imageInputs } from './inputs.js'
import type { Job } from './measure.js'
import { loadIn } from './precisions.js'
import { type OpTime, watchOps } from './watch-ops.js'

/** A timed section: total time, and its ops, longest first. The remainder is JavaScript and reading results back. */
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

/** Runs `work` with its ops timed. */
export const watched = async (name: string, work: () => unknown): Promise<Section> => {
  const stop = watchOps()
  const start = performance.now()
  let ms = 0
  let ops: readonly OpTime[] = []
  try {
    await work()
  } finally {
    ms = performance.now() - start
    ops = stop()
  }
  return { name, ms, ops }
}

/** Profiles vision, prefill and decoding after a warm-up. */
export const profile = async ({ checkpoint, precision, size, newTokens }: Job): Promise<Profile> => {
  const internvl = await loadIn(checkpoint, precision)
  const { model, config, engine } = internvl
  const { inputIds, pixelValues } = imageInputs(config, size)
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

/** A section as a table: the longest ops, the sum of the others, and the time outside ops. */
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
