import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import * as E from 'fp-ts/lib/Either.js'
import { load } from '../../../generation/checkpoint/load.js'
import { workerMember } from '../../../generation/cli/flags/worker-flags.js'
import { withoutLocalWorkers } from '../../../generation/cli/local-workers.js'
import { fineTune } from '../../../generation/train/fine-tune.js'
import { readTrainConfig } from '../../../generation/train/train-config.js'
import { nativeBackend } from '../../../lib/engines/index.js'
import { orThrow } from '../../../lib/error.js'

const shown = (path: string): string => fileURLToPath(new URL(`../../../generation/${path}`, import.meta.url))

describe('options of workers', () => {
  it('come from options or the environment; one without the other is an error', () => {
    const member = { addresses: ['a:1', 'b:2'], rank: 1 }
    assert.deepEqual(workerMember({}, {}), E.right(undefined))
    assert.deepEqual(workerMember({ workers: 'a:1,b:2', rank: '1' }, {}), E.right(member))
    assert.deepEqual(workerMember({}, { INTERNVL_WORKERS: 'a:1,b:2', INTERNVL_RANK: '1' }), E.right(member))
    const message = (...args: Parameters<typeof workerMember>) => {
      const found = workerMember(...args)
      return E.isLeft(found) ? found.left[0].message : ''
    }
    assert.match(message({ workers: 'a:1,b:2' }, {}), /--workers: needs --rank/)
    assert.match(message({ rank: '0' }, {}), /--rank: needs --workers/)
    assert.match(message({ workers: 'a:1,b:2', rank: '2' }, {}), /--rank: expected a number from 0 to 1/)
    assert.match(message({ localWorkers: 2, rank: '0' }, {}), /--local-workers starts all workers by itself/)
  })

  it('are passed on to local workers without --local-workers', () => {
    const args = ['bin.js', 'train', 't.json', '--local-workers', '2', '--zero', '1', '--local-workers=3']
    assert.deepEqual(withoutLocalWorkers(args), ['bin.js', 'train', 't.json', '--zero', '1'])
  })
})

describe('internvl train --local-workers', () => {
  let folder: string
  before(async function () {
    if (!nativeBackend()?.hasCollectives) this.skip() // only the native engine has collective operations
    folder = await mkdtemp(join(tmpdir(), 'local-'))
  })
  after(() => folder && rm(folder, { recursive: true, force: true }))

  const run = promisify(execFile)

  it('trains as one process does, with ZeRO-1 and a shared validation; an uneven share is one sentence', async function () {
    this.timeout(180000) // four processes load a model
    const row = (id: number) => ({
      ...{ id, image: shown(`demo/${id % 2 ? 'circle' : 'squares'}.png`) },
      conversations: [
        { from: 'human', value: '<image>\nWhat is this?' },
        { from: 'gpt', value: id % 2 ? 'A circle.' : `${'Some '.repeat(id)}squares.` }
      ]
    })
    const data = join(folder, 'data.jsonl')
    await writeFile(data, [1, 2, 3, 4].map((id) => JSON.stringify(row(id))).join('\n'))
    const file = join(folder, 'train.json')
    const settings = { data, validation: data, steps: 3, batch: { size: 2 }, train: { only: ['multi_modal_projector'] } }
    const rest = { optimizer: { learningRate: 1e-3 }, evaluate: { steps: 3 }, log: { tensorboard: false } }
    await writeFile(file, JSON.stringify({ ...settings, ...rest, output: join(folder, 'two') }))
    const workers = (...args: readonly string[]) =>
      run(process.execPath, [shown('bin.js'), 'train', file, ...args, '--local-workers', '2'])
    const uneven = await workers('--set', 'batch.size=3').catch((error: { readonly stderr: string }) => error)
    assert.match(uneven.stderr, /internvl: 2 workers cannot share the 3 samples of a step evenly/)

    const { stderr } = await workers('--zero', '1')
    assert.match(
      stderr,
      /2 workers: each step sums [\d.]+ MB of gradients \(1 bucket\); optimizer state by worker: [\d.]+ MB, [\d.]+ MB/
    )
    const logged = (await readFile(join(folder, 'two', 'train.jsonl'), 'utf8')).trim().split('\n').map((line) => JSON.parse(line)) // biome-ignore format: one line

    const losses: number[] = []
    const internvl = await load()
    await fineTune(internvl, await orThrow(readTrainConfig(file, [`output=${join(folder, 'one')}`])), {
      checkpoints: join(folder, 'one', 'checkpoints'),
      workers: 0,
      callbacks: [{ onStepEnd: ({ loss }) => losses.push(loss), onEvaluate: (_, { loss }) => losses.push(loss) }]
    })
    internvl.dispose()
    const found = logged.map(({ loss, validation }) => loss ?? validation.loss)
    assert.equal(found.length, losses.length)
    for (const [i, loss] of losses.entries())
      assert.ok(Math.abs(found[i] - loss) < 1e-5 * Math.max(1, loss), `${found[i]}, ${loss}`)
    const [one, two] = await Promise.all(['one', 'two'].map((name) => load(join(folder, name))))
    for (const model of [one!, two!]) model.dispose()
  })
})
