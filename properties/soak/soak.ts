import { answer, streamAnswers } from '../../generation/answer.js'
import { chat } from '../../generation/chat/chat.js'
import { type InternVLCheckpoint, load } from '../../generation/checkpoint/load.js'
import type { Series } from '../../generation/plot.js'
import { type Random, random } from '../../lib/random.js'
import { tf } from '../../lib/tf.js'
import type { RawImage } from '../../processors/image/image.js'
import type { Messages } from '../../processors/text/messages.js'

/** Number of repetitions of each part. */
export interface SoakSizes {
  readonly generations: number
  readonly chats: number
  readonly streams: number
  readonly loads: number
}

export type Part = keyof SoakSizes
export const defaultSizes: SoakSizes = { generations: 10_000, chats: 300, streams: 500, loads: 100 }

/** Tensors and memory after a share of a part, from 0 to 1. */
export interface SoakSample {
  readonly part: Part
  readonly done: number
  readonly tensors: number
  /** Bytes of all tensors, in MiB. */
  readonly tensorMegabytes: number
  /** Resident memory of the process, in MiB. */
  readonly residentMegabytes: number
}

const megabytes = (bytes: number): number => bytes / 2 ** 20

const sample = (part: Part, done: number): SoakSample => {
  globalThis.gc?.()
  const { numTensors: tensors, numBytes } = tf.memory()
  return { part, done, tensors, tensorMegabytes: megabytes(numBytes), residentMegabytes: megabytes(process.memoryUsage.rss()) }
}

const imageOf = (rng: Random): RawImage => {
  const [width, height] = [rng.integer(20, 200), rng.integer(20, 200)]
  const colour = rng.integer(0, 255)
  return { data: new Uint8Array(width * height * 3).fill(colour), width, height, channels: 3 }
}

const questions = ['What is in this image?', 'Which colour?', 'How many shapes are there?', 'Hello', 'Where is the circle?']

/** A question of a random length, in two of three cases with an image. */
const questionOf = (rng: Random): Messages => {
  const text = Array.from({ length: rng.integer(1, 6) }, () => rng.choice(questions)).join(' ')
  const items = rng.integer(0, 2) > 0 ? [{ type: 'image', image: imageOf(rng) } as const] : []
  return [{ role: 'user', content: [...items, { type: 'text', text }] }]
}

const lengths = (rng: Random) => ({ maxNewTokens: rng.integer(1, 8) })

/** One generation in any of the decoding methods. */
const generateOnce = async (internvl: InternVLCheckpoint, rng: Random, i: number): Promise<void> => {
  const methods = [{}, {}, { doSample: true, seed: i }, { numBeams: 2 }, { promptLookupNumTokens: 3 }]
  const method = methods[i % methods.length]!
  const rows = 'promptLookupNumTokens' in method ? 1 : rng.integer(1, 2)
  const batch = Array.from({ length: rows }, () => questionOf(rng))
  await answer(internvl, batch, { ...lengths(rng), ...method })
}

/** A chat of one to four turns; one in four is left in the middle of its last answer. */
const chatOnce = async (internvl: InternVLCheckpoint, rng: Random): Promise<void> => {
  const session = chat(internvl)
  try {
    for (let turn = rng.integer(1, 4); turn > 0; turn--) {
      const images = rng.integer(0, 1) > 0 ? [imageOf(rng)] : []
      const stream = session.send(rng.choice(questions), { images, ...lengths(rng) })
      const leaves = turn === 1 && rng.integer(0, 3) === 0
      for await (const _ of stream) if (leaves) break
    }
  } finally {
    session.dispose()
    internvl.features.clear()
  }
}

/** A stream that is left after a random number of steps: by `break`, by an error of the consumer, or by an abort. */
const streamOnce = async (internvl: InternVLCheckpoint, rng: Random): Promise<void> => {
  const steps = rng.integer(0, 6)
  const abort = new AbortController()
  const stream = streamAnswers(internvl, [questionOf(rng)], { maxNewTokens: 8, signal: abort.signal })
  const how = rng.choice(['break', 'error', 'abort', 'return'] as const)
  const left = new Error('left')
  try {
    let step = 0
    if (how === 'return' && steps === 0) await stream.return(undefined as never)
    for await (const _ of stream) {
      if (step++ < steps) continue
      if (how === 'error') throw left
      if (how === 'abort') abort.abort()
      else break
    }
  } catch (error) {
    if (error !== left) throw error
  }
}

export interface SoakOptions extends SoakSizes {
  readonly seed: number
  /** Folder of the model; the demo model by default. */
  readonly model?: string | undefined
  /** Samples of each part. */
  readonly samples?: number
  readonly onSample?: (sample: SoakSample) => void
}

/** Runs all parts in turn, and returns samples of tensors and memory. The first sample of a part follows its first tenth. */
export const soak = async ({ seed, model, samples = 60, onSample, ...sizes }: SoakOptions): Promise<readonly SoakSample[]> => {
  const result: SoakSample[] = []
  const run = async (part: Part, once: (i: number) => Promise<void>): Promise<void> => {
    const every = Math.max(1, Math.floor(sizes[part] / samples))
    for (let i = 1; i <= sizes[part]; i++) {
      await once(i)
      if (i % every !== 0) continue
      result.push(sample(part, i / sizes[part]))
      onSample?.(result.at(-1)!)
    }
  }
  const internvl = await load(model)
  try {
    await run('generations', (i) => generateOnce(internvl, random(seed, 1, i), i))
    await run('chats', (i) => chatOnce(internvl, random(seed, 2, i)))
    await run('streams', (i) => streamOnce(internvl, random(seed, 3, i)))
    await run('loads', async (i) => {
      const other = await load(model, i % 3 === 0 ? { quantize: 'int8' } : {})
      if (i % 2 === 0) await answer(other, [questionOf(random(seed, 4, i))], { maxNewTokens: 2 })
      other.dispose()
    })
  } finally {
    internvl.dispose()
  }
  return result
}

/** Growth over a part: least squares through the samples after the first tenth, as the difference between end and start. */
export interface Growth {
  readonly part: Part
  /** Difference of the numbers of tensors of the last and the first sample. */
  readonly tensors: number
  /** Growth of resident memory along the fitted line, in MiB. */
  readonly residentMegabytes: number
}

export const growthOf = (samples: readonly SoakSample[], part: Part): Growth | undefined => {
  const partSamples = samples.filter((one) => one.part === part && one.done > 0.1)
  const [first, last] = [partSamples[0], partSamples.at(-1)]
  if (!first || !last || partSamples.length < 2) return undefined
  const mean = (of: (one: SoakSample) => number) => partSamples.reduce((sum, one) => sum + of(one), 0) / partSamples.length
  const [x, y] = [mean(({ done }) => done), mean(({ residentMegabytes }) => residentMegabytes)]
  const covariance = mean(({ done, residentMegabytes }) => (done - x) * (residentMegabytes - y))
  const variance = mean(({ done }) => (done - x) ** 2)
  return { part, tensors: last.tensors - first.tensors, residentMegabytes: (covariance / variance) * (last.done - first.done) }
}

/** Lines of a measure against the share of a part that is done, one line a part. */
export const linesOf = (
  samples: readonly SoakSample[],
  measure: (sample: SoakSample) => number,
  names: (part: Part) => string
): readonly Series[] =>
  (Object.keys(defaultSizes) as Part[])
    .map((part) => ({
      name: names(part),
      dots: false,
      points: samples.filter((one) => one.part === part).map((one) => [100 * one.done, measure(one)] as const)
    }))
    .filter(({ points }) => points.length > 0)
