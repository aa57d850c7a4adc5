import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { convertCalibrated } from '../../../generation/checkpoint/convert-calibrated.js'
import { demoModel, type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { convert } from '../../../generation/checkpoint/save.js'
import { convertCommand } from '../../../generation/cli/commands/convert-command.js'
import { namedParameters } from '../../../lib/params.js'
import { dequantize, type StoredWeight } from '../../../lib/quantization/formats.js'
import { tf } from '../../../lib/tf.js'
import { relativeL2 } from '../../bench/quality/quality.js'

const colors = ['green', 'black', 'blue', 'pink', 'red', 'yellow', 'white']
const shapes = ['circle', 'star', 'triangle', 'square', 'cross']
const positions = ['top left', 'top right', 'bottom left', 'bottom right', 'center']
/** `count` sentences in the language of the demo model. */
const sentences = (count: number, start: number): string =>
  Array.from({ length: count }, (_, k) => {
    const i = start + k
    const [color, shape, position] = [colors[(3 * i) % 7], shapes[(2 * i + Math.floor(i / 7)) % 5], positions[(i * i) % 5]]
    return i % 3 === 0 ? `What is at the ${position}? A ${color} ${shape}.` : `There is a ${color} ${shape} at the ${position}.`
  }).join('\n')
const text = sentences(200, 0)

/** Logits of another text of the same kind. */
const logitsOf = ({ model, processor }: InternVLCheckpoint): Float32Array => {
  const ids = processor.tokenizer.encode(sentences(20, 1000), { addSpecialTokens: false })
  return tf.tidy(() => model({ inputIds: tf.tensor2d([[...ids]], undefined, 'int32') }).logits.dataSync() as Float32Array)
}

describe('convertCalibrated', () => {
  let folder = ''
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'calibrated-'))
  })
  after(() => rm(folder, { recursive: true }))

  const opened = async <A>(dir: string | undefined, use: (internvl: InternVLCheckpoint) => A): Promise<A> => {
    const internvl = await load(dir)
    try {
      return use(internvl)
    } finally {
      internvl.dispose()
    }
  }

  it('the logits are nearer to those of the original than with convert; keys and sizes are the same; no tensor is left', async () => {
    const [plain, calibrated] = [join(folder, 'plain'), join(folder, 'calibrated')]
    await convert(demoModel, plain, { layout: 'hf', quantize: 'int4' })
    const before = tf.memory().numTensors
    const shares: number[] = []
    await convertCalibrated(demoModel, calibrated, { quantize: 'int4', text, onProgress: (share) => shares.push(share) })
    assert.equal(tf.memory().numTensors, before)
    assert.deepEqual(
      shares,
      [...shares].sort((a, b) => a - b)
    )
    assert.equal(shares.at(-1), 1)
    const shapes = ({ params }: InternVLCheckpoint) => new Map(namedParameters(params).map(([key, { shape }]) => [key, shape]))
    assert.deepEqual(await opened(calibrated, shapes), await opened(plain, shapes))
    const exact = await opened(undefined, logitsOf)
    const errors = [await opened(plain, logitsOf), await opened(calibrated, logitsOf)].map((found) =>
      relativeL2([found], [exact])
    )
    assert.ok(errors[1]! < 0.9 * errors[0]!, `plain ${errors[0]}, calibrated ${errors[1]}`)
  })

  /** The weight `[vocabulary, hidden]` of the head, dequantized; the embeddings' where they are the head. */
  const headOf = ({ params, config }: InternVLCheckpoint): tf.Tensor2D => {
    const stored = namedParameters(params)
    const [key, tensor] = ['lm_head', 'embed_tokens'].flatMap((name) =>
      stored.filter(([key]) => key.includes(`${name}.weight`))
    )[0]!
    const format = /\.(bf16|int8|int6)$/.exec(key)?.[1]
    return dequantize((format ? { [format]: tensor } : tensor) as StoredWeight, config.textConfig.hiddenSize)
  }

  it('the head too: its outputs for final hidden states are nearer than with convert', async () => {
    const numbers = (head: InternVLCheckpoint) => tf.tidy(() => headOf(head).arraySync())
    const [exact, plain, calibrated] = [
      await opened(undefined, numbers),
      await opened(join(folder, 'plain'), numbers),
      await opened(join(folder, 'calibrated'), numbers)
    ]
    const states = await opened(undefined, ({ model, config, processor }) =>
      tf.tidy(() => {
        const inputIds = tf.tensor2d([processor.tokenizer.encode(sentences(20, 1000))], undefined, 'int32')
        const { hiddenStates } = model({ inputIds }, { outputHiddenStates: true })
        return hiddenStates!.at(-1)!.reshape<tf.Tensor2D>([-1, config.textConfig.hiddenSize]).arraySync()
      })
    )
    const errorOf = (head: number[][]): number =>
      tf.tidy(() => tf.matMul(states, tf.sub(head, exact), false, true).square().sum().arraySync() as number)
    assert.ok(errorOf(calibrated) < 0.9 * errorOf(plain), `plain ${errorOf(plain)}, calibrated ${errorOf(calibrated)}`)
  })

  it('a short text, a quantized folder and an unknown format are errors that say so', async () => {
    const to = join(folder, 'none')
    await assert.rejects(
      convertCalibrated(demoModel, to, { quantize: 'int4', text: 'Hi' }),
      /the text has \d+ tokens; use one of/
    )
    await assert.rejects(
      convertCalibrated(join(folder, 'calibrated'), to, { quantize: 'int4', text }),
      /quantized already; use the original folder/
    )
    await assert.rejects(convertCalibrated(demoModel, to, { quantize: 'int3' as 'int4', text }), /there is no "int3"/)
    await assert.rejects(convertCalibrated(demoModel, join(folder, 'calibrated'), { quantize: 'int4', text }), /is not empty/)
  })

  it('the command: --calibrate needs --quantize, and excludes --dtype', async () => {
    for (const argv of [
      ['--calibrate', 'a.txt'],
      ['--calibrate', 'a.txt', '--quantize', 'int4', '--dtype', 'float32']
    ]) {
      const shown: string[] = []
      const command = convertCommand()
        .exitOverride()
        .configureOutput({ writeErr: (line) => shown.push(line) })
      await assert.rejects(command.parseAsync([demoModel, join(folder, 'none'), ...argv], { from: 'user' }))
      assert.match(shown.join(''), /--calibrate/)
    }
  })
})
