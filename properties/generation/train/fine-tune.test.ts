import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { demoModel, load } from '../../../generation/checkpoint/load.js'
import { fineTune } from '../../../generation/train/fine-tune.js'
import { jsonlLogger } from '../../../generation/train/logging/train-log.js'
import { trainConfig } from '../../../generation/train/train-config.js'
import { getOrThrow } from '../../../lib/error.js'
import { namedParameters } from '../../../lib/params.js'

const imagePath = (name: string) => fileURLToPath(new URL(`../../../generation/demo/${name}`, import.meta.url))
const rowOf = (id: number, image: string, asked: string, answer: string) =>
  JSON.stringify({
    id,
    image: imagePath(image),
    conversations: [
      { from: 'human', value: `<image>\n${asked}` },
      { from: 'gpt', value: answer }
    ]
  })

describe('fineTune', () => {
  let folder: string
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tune-'))
    await writeFile(
      join(folder, 'train.jsonl'),
      `${rowOf(1, 'circle.png', 'What is this?', 'A lonely circle.')}\n${rowOf(2, 'squares.png', 'What are these?', 'Some squares.')}\n`
    )
  })
  after(() => rm(folder, { recursive: true, force: true }))

  const tuned = async (name: string, settings: Record<string, unknown>) => {
    const output = join(folder, name)
    const config = getOrThrow(trainConfig({ output, data: join(folder, 'train.jsonl'), batch: { size: 2 }, ...settings }))
    const internvl = await load()
    const lines = join(output, 'train.jsonl')
    await fineTune(internvl, config, { checkpoints: join(output, 'checkpoints'), workers: 0, callbacks: [jsonlLogger(lines)] })
    internvl.dispose()
    const logged = (await readFile(lines, 'utf8')).trim().split('\n').map((line) => JSON.parse(line) as { loss: number; metrics?: Record<string, number> }) // biome-ignore format: one line
    return { losses: logged.map(({ loss }) => loss), metrics: logged.map(({ metrics }) => metrics), result: await load(output) }
  }

  const bits = (params: unknown) =>
    new Map(namedParameters(params).map(([path, leaf]) => [path, Buffer.from(leaf.dataSync().buffer)]))

  it('trains the selected parameters and leaves all others bit-equal; the result opens as a checkpoint', async () => {
    const before = await load()
    const { losses, result } = await tuned('projector', {
      steps: 3,
      train: { only: ['multi_modal_projector'] },
      optimizer: { learningRate: 1e-2, schedule: 'constant', warmupRatio: 0 },
      save: { dtype: 'float32' }
    })
    assert.ok(losses[2]! < losses[0]!, losses.join(' '))
    const [old, fresh] = [bits(before.params), bits(result.params)]
    for (const [path, bytes] of old) assert.equal(bytes.equals(fresh.get(path)!), !path.includes('multi_modal_projector'), path)
    for (const model of [before, result]) model.dispose()
  })

  it('trains LoRA with frozen weights; the result has LoRA merged', async () => {
    const { losses, metrics, result } = await tuned('lora', {
      steps: 3,
      lora: { rank: 4, dropout: 0 },
      optimizer: { learningRate: 1e-2, schedule: 'constant', warmupRatio: 0 }
    })
    assert.ok(losses[2]! < losses[0]!, losses.join(' '))
    assert.deepEqual(metrics, [undefined, undefined, undefined])
    assert.ok(namedParameters(result.params).every(([path]) => !path.includes('lora')))
    result.dispose()
  })

  it('trains on pairs: before the first update of LoRA every reward is 0; then the log has a positive margin', async () => {
    const data = join(folder, 'pairs.jsonl')
    const pair = {
      image: imagePath('circle.png'),
      question: '<image>\nWhat is this?',
      chosen: 'A circle.',
      rejected: 'A square.'
    }
    await writeFile(data, `${JSON.stringify(pair)}\n`)
    const settings = { data, lora: { rank: 4, dropout: 0 }, loss: { type: 'mpo', nll: 0 } }
    const optimizer = { learningRate: 1e-2, schedule: 'constant', warmupRatio: 0 }
    const { losses, metrics, result } = await tuned('pairs', { ...settings, steps: 2, optimizer })
    const names = ['rewards/chosen', 'rewards/rejected', 'rewards/margins', 'rewards/accuracies']
    assert.deepEqual(names.map((name) => metrics[0]![name]), [0, 0, 0, 0]) // biome-ignore format: one line
    assert.ok(metrics[1]!['rewards/margins']! > 0, JSON.stringify(metrics[1]))
    assert.equal(metrics[1]!['rewards/accuracies'], 1)
    assert.ok(Math.abs(losses[0]! - 1.2 * Math.LN2) < 1e-5, `${losses[0]}`) // 0.8 (−log σ(0)) + 0.2 (−2 log σ(0))
    assert.ok(losses[1]! < losses[0]!)
    result.dispose()
  })

  it('an output that cannot be written is one plain error before the first step', async () => {
    const output = join(folder, 'train.jsonl', 'out') // below a file
    await assert.rejects(
      tuned('unwritable', { output, steps: 1 }),
      (error: Error) =>
        error.name === 'InternVLError' && /^\S+train\.jsonl\/out: .*cannot be written \(E[^\n]*$/.test(error.message)
    )
  })

  it('trains on a JSON array of rows, and on the files of a mixture', async () => {
    const rows = [rowOf(1, 'circle.png', 'What is this?', 'A circle.')].map((row) => JSON.parse(row) as unknown)
    await writeFile(join(folder, 'array.json'), JSON.stringify(rows))
    await writeFile(join(folder, 'mixture.json'), JSON.stringify({ a: { annotation: 'array.json', repeat_time: 2 } }))
    const settings = { steps: 1, train: { only: ['multi_modal_projector'] } }
    const losses: number[] = []
    for (const data of ['array.json', 'mixture.json']) {
      const found = await tuned(`data-${data}`, { ...settings, data: join(folder, data) })
      found.result.dispose()
      losses.push(found.losses[0]!)
    }
    assert.ok(Math.abs(losses[0]! - losses[1]!) < 1e-5, losses.join(' '))
  })

  it('visual.delta changes the positions of images; random deltas are the same in equal runs', async () => {
    const settings = { steps: 1, train: { only: ['multi_modal_projector'] } }
    const firstLoss = async (delta: number | 'random') => {
      const { losses, result } = await tuned(`delta-${delta}-${Math.random()}`, { ...settings, visual: { delta } })
      result.dispose()
      return losses[0]!
    }
    const [plain, quarter, sampled] = [await firstLoss(1), await firstLoss(1 / 4), await firstLoss('random')]
    assert.notEqual(quarter, plain)
    assert.notEqual(sampled, plain)
    assert.equal(await firstLoss('random'), sampled)
  })

  it('reports all errors of patterns, LoRA, data and output together before the first step', async () => {
    const data = join(folder, 'bad.jsonl')
    await writeFile(data, `${rowOf(1, 'none.png', 'What?', 'This.')}\nnot JSON\n`)
    await assert.rejects(
      tuned('bad', { output: demoModel, data, train: { freeze: ['vision_towr.**'] }, lora: { rank: 2, targets: ['nothing'] } }),
      /no linear layer matches nothing[\s\S]*no parameter matches vision_towr[\s\S]*bad.jsonl:2: not JSON[\s\S]*bad.jsonl:1: no such image[\s\S]*this is the folder of the model/
    )
  })
})
