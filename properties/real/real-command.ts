import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { convertCalibrated } from '../../generation/checkpoint/convert-calibrated.js'
import { type InternVLCheckpoint, type LoadOptions, load } from '../../generation/checkpoint/load.js'
import { autoSetup } from '../../generation/cli/commands/setup-command.js'
import { selectEngine } from '../../lib/engines/index.js'
import { tf } from '../../lib/tf.js'
import { visionTower } from '../../models/internvl/vision.js'
import { scratch } from '../conformance/model-case.js'
import { type Check, expectEqual, expectThat, expectWithin } from '../conformance/outcome.js'
import { realModel } from './real-model.js'
import { realWeights } from './real-weights.js'
import { agreement, type NextTokens, nextTokens, perplexity, textLogits } from './text-perplexity.js'

interface HiddenState {
  readonly shape: readonly number[]
  readonly norm: number
  /** Every 37th row and 61st column. */
  readonly values: readonly number[]
}

/** Values of Transformers and onnxruntime; written by make_real_weights.py. */
interface Reference {
  readonly decoder: {
    readonly ids: readonly number[]
    readonly loss: number
    readonly losses: readonly number[]
    readonly rows: readonly { readonly position: number; readonly ids: readonly number[]; readonly logits: readonly number[] }[]
  }
  readonly vision: { readonly states: readonly HiddenState[] }
}

const file = (name: string): string => readFileSync(new URL(name, import.meta.url), 'utf8')
const texts = ['text/harbour.txt', 'text/garden.txt'].map(file)
const VOCABULARY = 49152 // of the GGUF file; the folder's table has rows for visual tokens too

const precisions: Readonly<Record<string, LoadOptions>> = {
  float32: {},
  bfloat16: { dtype: 'bfloat16' },
  int8: { quantize: 'int8' },
  int4: { quantize: 'int4' }
}
/** Largest increase of the perplexity over float32's, as a fraction. */
const goals: Readonly<Record<string, number>> = { bfloat16: 0.001, int8: 0.005, int4: 0.06, 'int4, calibrated': 0.06 }

const encode = ({ processor }: InternVLCheckpoint, text: string) => processor.tokenizer.encode(text, { addSpecialTokens: false })

/** Predictions of the texts one after another, each read from its begin. */
const predict = (internvl: InternVLCheckpoint): NextTokens => {
  const parts = texts.map((text) => {
    const ids = encode(internvl, text)
    return scratch(() => nextTokens(textLogits(internvl, ids, VOCABULARY), ids))
  })
  return {
    losses: Float32Array.from(parts.flatMap(({ losses }) => [...losses])),
    best: Int32Array.from(parts.flatMap(({ best }) => [...best]))
  }
}

/** The decoder beside Transformers: ids, log-probabilities, and the largest logits of some positions. */
const decoderChecks = (internvl: InternVLCheckpoint, { decoder }: Reference): readonly Check[] => {
  const ids = encode(internvl, texts[0]!)
  return scratch(() => {
    const logits = textLogits(internvl, ids, VOCABULARY)
    const { losses } = nextTokens(logits, ids)
    const mean = losses.reduce((sum, x) => sum + x, 0) / losses.length
    const rows = decoder.rows.map(({ position, ids: best, logits: expected }): Check => {
      const row = logits.slice([position, 0], [1, VOCABULARY]).dataSync()
      const tolerance = 1e-3 * Math.max(...expected.map(Math.abs))
      return {
        name: `decoder: logits at ${position}`,
        outcome: expectWithin(
          best.map((id) => row[id]!),
          expected,
          tolerance
        )
      }
    })
    return [
      { name: 'decoder: ids', outcome: expectEqual(ids, decoder.ids) },
      {
        name: 'decoder: log-probabilities',
        outcome: expectWithin([...losses.slice(0, decoder.losses.length)], decoder.losses, 2e-3)
      },
      { name: 'decoder: mean', outcome: expectWithin([mean], [decoder.loss], 1e-4) },
      ...rows
    ]
  })
}

/** Smooth waves of three colours. Source: `image` of make_real_weights.py. */
const waves = (size: number): tf.Tensor4D =>
  tf.tidy(() => {
    const values = Array.from({ length: 3 * size * size }, (_, i) => {
      const [c, y, x] = [Math.floor(i / (size * size)), (Math.floor(i / size) % size) / size, (i % size) / size]
      return Math.sin(9 * x + 2 * c) * Math.cos(7 * y - c)
    })
    return tf.tensor4d(values, [1, 3, size, size])
  })

/** The vision tower beside onnxruntime: the hidden state after every layer, and after the final norm. */
const visionChecks = ({ config, params }: InternVLCheckpoint, { vision }: Reference): readonly Check[] => {
  const tower = visionTower(config.visionConfig).apply(params.model.vision_tower as never)
  return scratch(() => {
    const { hiddenStates, lastHiddenState } = tower(waves(224), { outputHiddenStates: true })
    const states = [...hiddenStates!.slice(1), lastHiddenState]
    return vision.states.map(({ shape, values, norm }, i): Check => {
      const [, rows = 0, columns = 0] = shape
      const all = states[i]!.dataSync() as Float32Array
      const sampled = Array.from({ length: Math.ceil(rows / 37) }, (_, r) =>
        Array.from({ length: Math.ceil(columns / 61) }, (_, c) => all[r * 37 * columns + c * 61]!)
      ).flat()
      const tolerance = 1e-3 * Math.max(...values.map(Math.abs))
      const size = Math.sqrt(all.reduce((sum, x) => sum + x * x, 0))
      const near = expectThat(Math.abs(size / norm - 1) < 1e-3, () => `norm ${size}, expected ${norm}`)
      const name = i < vision.states.length - 1 ? `after layer ${i + 1}` : 'after the final norm'
      return { name: `vision: ${name}`, outcome: near._tag === 'Passed' ? expectWithin(sampled, values, tolerance) : near }
    })
  })
}

/** A row of the table of precisions. */
const tableRow = (name: string, found: NextTokens, exact: NextTokens): string => {
  const increase = perplexity(found) / perplexity(exact) - 1
  const goal = goals[name]
  const reached = goal === undefined ? '' : `${100 * goal} %: ${increase <= goal ? 'reached' : 'missed'}`
  const percent = (x: number): string => `${(100 * x).toFixed(2)} %`
  return `| ${name} | ${perplexity(found).toFixed(3)} | ${percent(increase)} | ${percent(agreement(found, exact))} | ${reached} |`
}

/** The predictions of the model in int4, calibrated with files. */
const predictCalibrated = async (folder: string, files: readonly string[]): Promise<NextTokens> => {
  const to = join(mkdtempSync(join(tmpdir(), 'internvl-real-')), 'calibrated')
  try {
    const text = files.map((name) => readFileSync(name, 'utf8')).join('\n')
    await convertCalibrated(folder, to, { quantize: 'int4', text })
    const internvl = await load(to)
    const found = predict(internvl)
    internvl.dispose()
    return found
  } finally {
    rmSync(to, { recursive: true, force: true })
  }
}

// `npm run test:real -- FILE…` also measures int4 calibrated with the files, which takes minutes.
const run = async (): Promise<void> => {
  const fetched = await realWeights()()
  if (E.isLeft(fetched)) {
    console.log(`SKIPPED: the learned weights are not there. ${fetched.left.map(({ message }) => message).join('; ')}`)
    return
  }
  await autoSetup()
  const engine = await selectEngine()
  process.stderr.write(`engine: ${engine.name}\n`)
  const folder = await realModel(fetched.right)
  const reference = JSON.parse(file('real-weights.json')) as Reference
  const checks: Check[] = []
  let exact: NextTokens | undefined
  const rows: string[] = []
  for (const [name, options] of Object.entries(precisions)) {
    const internvl = await load(folder, options)
    if (!exact) checks.push(...decoderChecks(internvl, reference), ...visionChecks(internvl, reference))
    const found = predict(internvl)
    exact ??= found
    rows.push(tableRow(name, found, exact))
    process.stderr.write(`${rows.at(-1)}\n`)
    internvl.dispose()
  }
  const files = process.argv.slice(2)
  if (files.length > 0) rows.push(tableRow('int4, calibrated', await predictCalibrated(folder, files), exact!))
  for (const { name, outcome } of checks) if (outcome._tag === 'Failed') console.log(`FAILED ${name}: ${outcome.message}`)
  const failures = checks.filter(({ outcome }) => outcome._tag === 'Failed').length
  console.log(`${checks.length - failures} passed, ${failures} failed, beside Transformers and onnxruntime`)
  console.log(`\n| | perplexity | above float32 | same most probable token | goal |\n|---|---|---|---|---|\n${rows.join('\n')}`)
  process.exitCode = failures > 0 ? 1 : 0
}

await run()
