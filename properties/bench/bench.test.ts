import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { demoModel, load } from '../../generation/checkpoint/load.js'
import { namedParameters } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import { partOfPath } from '../../models/families.js'
import { contestsOf, runContest } from './contest.js'
import { benchCommand, type Flags } from './flags.js'
import { type Figure, type Job, type Measured, measure } from './measure/measure.js'
import { profile, profileTable, watched } from './measure/profile.js'
import { measureTraining } from './measure/training-steps.js'
import { workOf } from './measure/work.js'
import { quality, relativeL2 } from './quality/quality.js'
import { appendHistory, type Entry, historyPanels, readHistory } from './report/bench-history.js'
import { peaksLine, rooflineLines } from './report/roofline.js'
import { median, ratios, summarize } from './report/summary.js'
import { table, trainingNotes } from './report/table.js'

const job: Job = { checkpoint: demoModel, precision: 'int8', kind: 'tiles', size: 1, newTokens: 3, runs: 1 }
const value = fc.double({ min: 1e-3, max: 1e4, noNaN: true })
const values = fc.array(value, { minLength: 1, maxLength: 5 })
const measured = (runs: readonly number[]): Measured => ({
  engine: 'native',
  dtype: 'int8',
  tokens: 80,
  samples: { load_s: [runs[0]!], prefill_s: runs, decode_tokens_per_s: runs, peak_rss_mb: [runs[0]!] }
})

/** Parses arguments: flags, or the error message. */
const parsed = async (...args: readonly string[]): Promise<Flags | string> => {
  let result: Flags | string = ''
  const command = benchCommand(async (flags) => {
    result = flags
  })
  command.exitOverride().configureOutput({
    writeErr: (text) => {
      result += text
    }
  })
  await command.parseAsync([...args], { from: 'user' }).catch(() => undefined)
  return result
}

describe('bench', () => {
  describe('figures', () => {
    it('are the best and the median over all processes; the ratio of a result to itself is 1', () =>
      fc.assert(
        fc.property(fc.array(values, { minLength: 1, maxLength: 3 }), (rounds) => {
          const all = rounds.flat()
          const result = summarize(rounds.map(measured), 'tiles', 7)
          assert.deepEqual([result.tiles, result.tokens], [7, 80])
          assert.deepEqual([result.prefill_s, result.decode_tokens_per_s], [Math.min(...all), Math.max(...all)])
          assert.equal(result.median.prefill_s, median(all))
          assert.equal(result.vision_s, undefined)
          assert.deepEqual(new Set(Object.values(ratios(result, result))), new Set([1]))
        })
      ))

    it('are compared by speed-up factor, and memory by its share', () => {
      const [result, other] = [measured([1, 4]), measured([2, 8])].map((m) => summarize([m], 'tiles', 1)) as [never, never]
      const expected = { load_s: 2, prefill_s: 2, decode_tokens_per_s: 0.5, peak_rss_mb: 0.5 }
      assert.deepEqual(ratios(result, other), expected)
    })

    it('a median has at most half of the values on either side', () =>
      fc.assert(
        fc.property(values, (xs) => {
          const m = median(xs)
          for (const side of [xs.filter((x) => x < m), xs.filter((x) => x > m)]) assert.ok(2 * side.length <= xs.length)
        }),
        { examples: [[[1, 2]], [[3, 1, 2]], [[1, 1, 2]]] }
      ))
  })

  describe('roofline', () => {
    const peaks = { threads: 2, bytesPerSecond: 1e10, float32: 1e11, int16: 2e11 }

    it('the shares are work a second over the limits', () => {
      const work = { vision: 1e11, prefill: 2e11, bytesPerToken: 5e8 }
      const found = summarize(
        [{ ...measured([2]), work, samples: { vision_s: [2], prefill_s: [4], decode_tokens_per_s: [10] } }],
        'tiles',
        1
      )
      assert.deepEqual(rooflineLines([found, summarize([measured([1])], 'tiles', 1)], peaks), [
        "native int8: vision 50 GFLOP/s (0.50 of float32's peak); first token 50 GFLOP/s (0.50 of float32's peak); decoding reads 500 MB a step, 5.0 GB/s (0.50 of the memory's)"
      ])
      assert.equal(peaksLine(peaks), 'limits (2 threads): memory 10 GB/s, float32 100 GFLOP/s, int16 200 Gop/s')
    })

    it('work of the demo model: operations of its products, bytes of its weights', async () => {
      const internvl = await load()
      const size = (part: string) =>
        namedParameters(internvl.params)
          .filter(([path, { rank }]) => partOfPath(path) === part && rank > 1)
          .reduce((sum, [, tensor]) => sum + tensor.size, 0)
      const none = workOf(internvl, { tiles: 0, rows: 1, promptTokens: 1, newTokens: 0 })
      assert.equal(none.vision, 0)
      const head = size('head') || size('embeddings')
      assert.ok(none.prefill >= 2 * (size('decoder') + head) && none.prefill < 2.1 * (size('decoder') + head))
      assert.ok(none.bytesPerToken >= 4 * (size('decoder') + head))
      const tile = workOf(internvl, { tiles: 1, rows: 1, promptTokens: 1, newTokens: 0 })
      const twoTiles = workOf(internvl, { tiles: 2, rows: 1, promptTokens: 1, newTokens: 0 })
      assert.equal(twoTiles.vision, 2 * tile.vision)
      assert.ok(tile.vision > 2 * size('vision'))
      internvl.dispose()
    })
  })

  describe('measure', () => {
    const figuresOf = ({ samples }: Measured): readonly string[] => {
      for (const all of Object.values(samples)) assert.ok(all.length === 1 && all.every((x) => x > 0))
      return Object.keys(samples)
    }
    const text: readonly Figure[] = ['load_s', 'prefill_s', 'decode_tokens_per_s', 'peak_rss_mb']

    it('gives every figure once a run for images, text, batches and loading, and leaves no tensor', async () => {
      const before = tf.memory().numTensors
      assert.deepEqual(figuresOf(await measure(job)), ['load_s', 'vision_s', 'prefill_s', 'decode_tokens_per_s', 'peak_rss_mb'])
      const long = await measure({ ...job, kind: 'context', size: 50 })
      assert.deepEqual([figuresOf(long), long.tokens], [text, 50])
      const rows = await measure({ ...job, kind: 'batch', size: 3 })
      assert.deepEqual([figuresOf(rows), rows.tokens], [text, 64])
      assert.deepEqual(figuresOf(await measure({ ...job, kind: 'load' })), ['load_s', 'peak_rss_mb'])
      assert.equal(tf.memory().numTensors, before)
    })

    it("refuses a prompt longer than the model's positions", async () => {
      await assert.rejects(measure({ ...job, kind: 'context', size: 5000 }), /RangeError: --context 5000: .* this model has 4096/)
    })
  })

  it('training: the loss decreases at every step, the first step is not timed, and no tensor is left', async () => {
    const before = tf.memory().numTensors
    const adapter = await mkdtemp(join(tmpdir(), 'bench '))
    const found = await measureTraining({ checkpoint: demoModel, size: 2, steps: 3, adapter: join(adapter, 'adapter') })
    const [first, second, third] = found.losses!
    assert.ok(first! > second! && second! > third!)
    assert.deepEqual([found.samples.step_s?.length, found.memory?.map(([step]) => step)], [2, [3]])
    assert.ok((await readFile(join(adapter, 'adapter', 'adapter_config.json'), 'utf8')).includes('"r": 16'))
    assert.equal(tf.memory().numTensors, before)
    const result = summarize([found], 'train', 2)
    assert.match(table([result]), /2 rows to train on, 192 tokens.*step s.*tokens\/s/)
    assert.match(trainingNotes([result])[0]!, /^native float32: losses .* MB after step 3$/)
    await rm(adapter, { recursive: true })
  })

  it('training of all weights: the loss decreases, and no tensor is left', async () => {
    const before = tf.memory().numTensors
    const { losses = [], tokens } = await measureTraining({ checkpoint: demoModel, size: 2, steps: 3 })
    assert.ok(losses[0]! > losses[1]! && losses[1]! > losses[2]! && tokens === 192)
    assert.equal(tf.memory().numTensors, before)
  })

  describe('profile', () => {
    it('counts every call of an op, and the sum of self times is at most the total', async () => {
      const x = tf.scalar(2)
      const { ms, ops } = await watched('sums', () => tf.tidy(() => void x.add(x).add(x).dataSync()))
      assert.deepEqual(
        ops.map(({ op, calls }) => [op, calls]),
        [['Add', 2]]
      )
      assert.ok(ops[0]!.ms <= ms)
      x.dispose()
    })

    it('stops timing after an error', async () => {
      const functions = () => tf.getKernelsForBackend(tf.getBackend()).map(({ kernelFunc }) => kernelFunc)
      const before = functions()
      await assert.rejects(
        watched('', () => {
          throw new Error('no')
        })
      )
      assert.deepEqual(functions(), before)
    })

    it('has separate sections for vision, prefill and decoding', async () => {
      const found = await profile(job)
      for (const { ms, ops } of found.sections) assert.ok(ops.length > 0 && ops.reduce((sum, op) => sum + op.ms, 0) <= ms)
      assert.match(profileTable(found), /vision.*prefill.*decode, 3 tokens.*outside ops/s)
    })
  })

  describe('history', () => {
    let folder: string
    before(async () => {
      folder = await mkdtemp(join(tmpdir(), 'bench '))
    })
    after(() => rm(folder, { recursive: true }))
    const entry = (commit: string, machine = 'here'): Entry => ({
      ...{ commit, date: '2026-11-25T18:00:00Z', machine, checkpoint: 'demo', runs: 1, rounds: 1 },
      results: [summarize([measured([1])], 'tiles', 1)]
    })

    it('stores entries in order, and plots those of one machine', async () => {
      const file = join(folder, 'h.jsonl')
      const entries = [entry('a'), entry('b', 'elsewhere'), entry('c')]
      await appendHistory(file, entries.slice(0, 1))
      await appendHistory(file, entries.slice(1))
      assert.deepEqual(readHistory(file), entries)
      assert.deepEqual([...(await readFile(join(folder, 'h.png'))).subarray(1, 4)], [...Buffer.from('PNG')])
      const points = historyPanels(entries)[0]!.series[0]!.points.map(([x]) => `${x}`.split(' ')[0])
      assert.deepEqual(points, ['a', 'c'])
    })

    it('names an invalid line', async () => {
      const file = join(folder, 'bad.jsonl')
      for (const line of ['{"commit":', '{"commit":"a"}', '7']) {
        await writeFile(file, `${JSON.stringify(entry('a'))}\n${line}\n`)
        assert.throws(() => readHistory(file), { name: 'RangeError', message: /bad\.jsonl:2: no entry/ })
      }
    })
  })

  describe('flags', () => {
    it('are lists with defaults', async () => {
      const flags = (await parsed('--precision', 'int8, 4bit', '--tiles', '1,7')) as Flags
      assert.deepEqual([flags.precision, flags.tiles, flags.checkpoint], [['int8', 'int4'], [1, 7], [demoModel]])
      assert.deepEqual(((await parsed()) as Flags).precision, ['float32'])
    })

    const wrong: ReadonlyArray<readonly [args: string, message: RegExp]> = [
      ['--precision fp16', /"fp16" is unknown; use one or several of float32, bfloat16, int8, int4/],
      ['--precision int8,int8', /"int8" is listed twice/],
      ['--tiles 0', /"0" is not a whole number above 0/],
      ['--context 1,x', /"x" is not a whole number above 0/],
      ['--batch 1.5', /"1.5" is not a whole number/],
      ['--engine gpu', /Allowed choices are native, wasm, cpu/],
      ['--load --tiles 2', /--load times loading only/],
      ['--profile --compare', /--profile can be combined with/],
      ['--train --tiles 2', /--train can be combined with/],
      ['--train --precision int8', /--train measures float32 only/],
      ['--steps 3', /--steps needs --train/],
      ['--all-weights', /--all-weights needs --train/],
      ['--quality --tiles 2', /--quality can be combined with/],
      ['--eval a.jsonl', /--eval and --rows need --quality/],
      ['--speed', /unknown option '--speed'/]
    ]
    for (const [args, message] of wrong)
      it(`${args} is refused with a message`, async () => assert.match(`${await parsed(...args.split(' '))}`, message))

    it('--roofline and --openvino measure speed: loading, training, profiles and quality refuse them', async () => {
      for (const flag of ['--roofline', '--openvino'])
        for (const other of ['--load', '--train', '--profile', '--quality'])
          assert.match(String(await parsed(flag, other)), new RegExp(`error: ${other}`))
      assert.equal(((await parsed('--roofline')) as Flags).roofline, true)
    })

    it('--llamacpp needs a precision that llama.cpp has', async () => {
      const flags = (await parsed('--llamacpp')) as Flags
      assert.throws(() => contestsOf(flags), /int8 and int4; --precision is float32/)
    })
  })

  it('a contest measures in turn, and compares with the rival', async () => {
    const order: string[] = []
    const contender = (name: string, runs: readonly number[]) => ({
      name,
      run: async () => {
        order.push(name)
        return measured(runs)
      }
    })
    const contenders = [{ ...contender('a', [2]), rival: 'b' }, contender('b', [4])]
    const results = await runContest({ checkpoint: '', kind: 'tiles', size: 1, contenders }, 2, () => {})
    assert.equal(order.join(''), 'abab')
    assert.equal(results[0]!.versus?.ratio.prefill_s, 2)
    assert.equal(results[1]!.versus, undefined)
    assert.match(table(results), /1 tile, 80 tokens.*of native int8 .*2\.00x/s)
  })

  it('quality: logits are compared with float32; int8 is within 2 %', async () => {
    const { rows, text } = await quality({ checkpoint: [demoModel], precision: ['int8'] }, () => {})
    assert.deepEqual(
      rows.map(({ precision }) => precision),
      ['float32', 'int8']
    )
    assert.equal(rows[0]!.logits_l2, 0)
    assert.ok(rows[1]!.logits_l2 > 0 && rows[1]!.logits_l2 < 0.02, text)
  })

  it('the relative L2 of a scaled array is the scale', () =>
    fc.assert(
      fc.property(fc.float32Array({ minLength: 1, maxLength: 8, noNaN: true, min: 1, max: 9 }), (b) => {
        assert.ok(Math.abs(relativeL2([b.map((x) => x * 1.5)], [b]) - 0.5) < 1e-6)
      })
    ))
})
