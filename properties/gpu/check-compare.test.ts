import assert from 'node:assert/strict'
import { demoModel } from '../../generation/checkpoint/load.js'
import { peftPython } from '../bench/peers/python.js'
import { inFolder } from '../models/folders.js'
import { bench, type CheckOptions } from './check-parts.js'

/** The reason for which Transformers and PEFT cannot be measured here; undefined where they can. */
const missing = (() => {
  try {
    peftPython()
    return undefined
  } catch (error) {
    return (error as Error).message
  }
})()

/** The results of a section of the check. */
const resultsOf = async (name: string, args: readonly string[]) =>
  inFolder(async (out) => {
    const options: CheckOptions = { cases: '', images: '', checkpoint: demoModel, out, compare: true, generations: 0, scenes: 0 }
    const { summary, details } = await bench(options, name, args).run()
    const [{ results }] = details as [{ results: Record<string, unknown>[] }]
    return { summary, results }
  })

describe(`check of a GPU beside Transformers and PEFT${missing ? ` (skipped: ${missing})` : ''}`, () => {
  before(function () {
    if (missing) this.skip()
  })

  it('speed: both decode the demo model, and the table has their ratio', async () => {
    const { summary, results } = await resultsOf('speed', ['--precision', 'float32', '--runs', '1', '--new-tokens', '2'])
    assert.match(summary, /transformers float32/)
    assert.deepEqual(
      results.map(({ engine, tokens }) => [engine, tokens]),
      [
        ['native', 80],
        ['transformers', 80]
      ]
    )
    const { ratio } = results[0]!.versus as { ratio: Readonly<Record<string, number>> }
    for (const name of ['load_s', 'vision_s', 'prefill_s', 'decode_tokens_per_s', 'peak_rss_mb'])
      assert.ok(Number.isFinite(ratio[name]) && ratio[name]! > 0, name)
  })

  it('LoRA step: both take the same steps, with equal losses', async () => {
    const { summary, results } = await resultsOf('LoRA step', ['--train', '--steps', '2'])
    assert.match(summary, /of peft float32/)
    const [ours, theirs] = results.map(({ losses }) => losses as readonly number[])
    assert.equal(ours!.length, 2)
    for (const [i, loss] of ours!.entries()) assert.ok(Math.abs(loss - theirs![i]!) < 1e-4, `${loss} and ${theirs![i]}`)
  })
})
