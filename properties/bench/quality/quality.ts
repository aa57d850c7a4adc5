import { answer } from '../../../generation/answer.js'
import type { InternVLCheckpoint } from '../../../generation/checkpoint/load.js'
import { type DatasetRow, readDataset } from '../../../generation/evaluate/eval-dataset.js'
import { score, splitPrompt } from '../../../generation/evaluate/evaluated-row.js'
import { answerLogits, answerLosses, type Perplexity, perplexityOf } from '../../../generation/evaluate/perplexity.js'
import { selectEngine } from '../../../lib/engines/index.js'
import { orThrow } from '../../../lib/error.js'
import { tf } from '../../../lib/tf.js'
import type { Flags } from '../flags.js'
import { imageInputs } from '../measure/inputs.js'
import { loadIn, type PrecisionName, precisionNames } from '../measure/precisions.js'
import { checkpointName } from '../report/bench-history.js'
import { aligned } from '../report/table.js'

/** Quality of one model in one precision. */
export interface Quality extends Partial<Perplexity> {
  readonly checkpoint: string
  readonly precision: PrecisionName
  /** `‖logits − logits of float32‖ / ‖logits of float32‖`. */
  readonly logits_l2: number
  /** Number of exactly right answers, of `rows`. */
  readonly right?: number
  readonly rows?: number
}

/** Logits, losses and right answers of a model in one precision. */
interface Evaluated {
  readonly logits: readonly Float32Array[]
  readonly losses: readonly number[]
  readonly right: number
}

const ONE_TILE = { maxPatches: 1 } // as `internvl eval`
const BATCH = 8

/** `‖a − b‖ / ‖b‖` over two lists of arrays with equal lengths. */
export const relativeL2 = (as: readonly Float32Array[], bs: readonly Float32Array[]): number => {
  let [difference, size] = [0, 0]
  for (const [i, b] of bs.entries())
    for (let j = 0; j < b.length; j++) {
      difference += (as[i]![j]! - b[j]!) ** 2
      size += b[j]! ** 2
    }
  return Math.sqrt(difference / size)
}

/** Logits of the last 32 words of a prompt with one noise image, used when no questions are given. */
const noiseLogits = ({ model, config }: InternVLCheckpoint): Float32Array => {
  const inputs = imageInputs(config, 1)
  const logits = tf.tidy(() => model(inputs, { logitsToKeep: 32 }).logits.dataSync()) as Float32Array
  tf.dispose([inputs.inputIds, inputs.pixelValues!])
  return logits
}

/** Logits and losses of the reference answers, and the number of right answers of the model. */
const evaluate = async (internvl: InternVLCheckpoint, rows: readonly DatasetRow[]): Promise<Evaluated> => {
  if (rows.length === 0) return { logits: [noiseLogits(internvl)], losses: [], right: 0 }
  const [logits, losses]: [Float32Array[], number[]] = [[], []]
  for (const { messages } of rows) {
    const known = await answerLogits(internvl, messages, ONE_TILE)
    logits.push((await known.logits.data()) as Float32Array)
    losses.push(...answerLosses(known))
    known.logits.dispose()
  }
  let right = 0
  for (let i = 0; i < rows.length; i += BATCH) {
    const some = rows.slice(i, i + BATCH)
    const { texts } = await answer(
      internvl,
      some.map((row) => splitPrompt(row).prompt),
      { ...ONE_TILE, doSample: false }
    )
    right += some.filter((row, j) => score(row, texts[j]!).correct).length
  }
  return { logits, losses, right }
}

/** Quality of one folder, first in float32 and then in every requested precision, in this process. */
const qualityOf = async (
  checkpoint: string,
  wanted: readonly PrecisionName[],
  rows: readonly DatasetRow[],
  say: (line: string) => void
): Promise<readonly Quality[]> => {
  const found: Quality[] = []
  let exact: Evaluated | undefined
  for (const precision of ['float32' as const, ...wanted.filter((name) => name !== 'float32')]) {
    say(`${checkpointName(checkpoint)}, ${precision}`)
    const internvl = await loadIn(checkpoint, precision)
    try {
      const result = await evaluate(internvl, rows)
      exact ??= result
      const answers = rows.length > 0 ? { ...perplexityOf(result.losses), right: result.right, rows: rows.length } : {}
      found.push({
        checkpoint: checkpointName(checkpoint),
        precision,
        logits_l2: relativeL2(result.logits, exact.logits),
        ...answers
      })
    } finally {
      internvl.dispose()
    }
  }
  return found
}

/** Quality results as a table; perplexity is empty when no questions were given. */
const qualityTable = (rows: readonly Quality[]): string =>
  aligned([
    ['', 'logits, rel. L2', 'perplexity', 'right answers'],
    ...rows.map(({ checkpoint, precision, logits_l2, perplexity, right, rows }) => [
      `${checkpoint} ${precision}`,
      precision === 'float32' ? '-' : `${(100 * logits_l2).toFixed(3)} %`,
      perplexity?.toFixed(4) ?? '',
      right === undefined ? '' : `${right}/${rows}`
    ])
  ])

/** Quality of every folder in the requested precisions; all precisions by default. */
export const quality = async (
  flags: Pick<Flags, 'checkpoint' | 'precision' | 'eval' | 'rows'>,
  say: (line: string) => void
): Promise<{ readonly rows: readonly Quality[]; readonly text: string }> => {
  const asked = flags.eval === undefined ? [] : (await orThrow(readDataset(flags.eval))).slice(0, flags.rows)
  const wanted = flags.precision.some((name) => name !== 'float32') ? flags.precision : precisionNames
  await selectEngine()
  const rows: Quality[] = []
  for (const checkpoint of flags.checkpoint) rows.push(...(await qualityOf(checkpoint, wanted, asked, say)))
  return { rows, text: qualityTable(rows) }
}
