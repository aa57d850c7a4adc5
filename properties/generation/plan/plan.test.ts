import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import { demoModel, load } from '../../../generation/checkpoint/load.js'
import { inspectCommand } from '../../../generation/cli/commands/inspect-command.js'
import { measureSpeed } from '../../../generation/plan/machine-speed.js'
import { type Plan, type PlanOptions, plan } from '../../../generation/plan/plan.js'
import { orThrow } from '../../../lib/error.js'
import { namedParameters } from '../../../lib/params.js'
import { inspectModel } from '../../../models/checkpoint/inspect-model.js'

const image = fileURLToPath(new URL('../../../generation/demo/circle.png', import.meta.url))
const sum = (parts: Readonly<Record<string, number>>): number => Object.values(parts).reduce((total, x) => total + x, 0)

/** Output of `internvl inspect`. */
const printed = async (...args: readonly string[]): Promise<string> => {
  const [log, lines] = [console.log, [] as string[]]
  console.log = (line: unknown) => void lines.push(String(line))
  try {
    await inspectCommand()
      .exitOverride()
      .parseAsync(['node', 'inspect', ...args])
  } finally {
    console.log = log
  }
  return lines.join('\n')
}

describe('plan', () => {
  it('tiles and tokens are those of the prepared request; the weights of the parts sum to those of the model', async () => {
    const internvl = await load(demoModel)
    const content = [
      { type: 'image', path: image },
      { type: 'text', text: 'Describe the image.' }
    ] as const
    const inputs = await orThrow(internvl.processor.prepare([[{ role: 'user', content }]], { maxPatches: 6 }))
    const found = await plan(demoModel, { images: [image], maxPatches: 6, maxNewTokens: 10 })
    assert.equal(found.tiles, inputs.pixelValues!.shape[0])
    assert.equal(found.promptTokens, inputs.inputIds.shape[1])
    assert.equal(found.positionsLeft, internvl.config.textConfig.maxPositionEmbeddings - found.promptTokens - 10)
    assert.equal(found.media[0]!.columns! * found.media[0]!.rows! + 1, found.tiles)
    const { partNeeds, needs } = await orThrow(inspectModel(demoModel))
    for (const [i, { name, parts }] of partNeeds.entries()) {
      assert.equal(sum(parts), needs[i]!.bytes, name)
      assert.deepEqual(Object.keys(parts).sort(), ['decoder', 'embeddings', 'projector', 'vision'])
    }
    assert.equal(found.training, undefined)
    inputs.dispose()
    internvl.dispose()
  })

  it('the largest numbers that fit do fit, and one more does not', async () => {
    const base: PlanOptions = { images: [image], maxPatches: 1, maxNewTokens: 10 }
    const memory = 0.9e9
    for (const { name, largest } of (await plan(demoModel, { ...base, memory })).precisions) {
      const fits = async (batchSize: number) =>
        (await plan(demoModel, { ...base, memory, batchSize })).precisions.find((one) => one.name === name)!.fits
      assert.ok(largest.rows > 1, name)
      assert.equal(await fits(largest.rows), true)
      assert.equal(await fits(largest.rows + 1), false)
      assert.ok(largest.tiles >= largest.frames) // a frame has words of its own
    }
    const { precisions, training } = await plan(demoModel, { ...base, memory: 1000, train: {} })
    assert.ok(precisions.every(({ fits, largest }) => !fits && largest.tiles === 0 && largest.rows === 0))
    assert.deepEqual([training!.fits, training!.largestBatch], [false, 0])
  })

  it('a training of all weights counts every parameter; LoRA counts its matrices, and needs less', async () => {
    const internvl = await load(demoModel)
    const parameters = namedParameters(internvl.params).reduce((n, [, leaf]) => n + leaf.size, 0)
    internvl.dispose()
    const training = async (train: NonNullable<PlanOptions['train']>) =>
      (await plan(demoModel, { images: [image], train })).training!
    const [all, lora, one, double] = [await training({}), await training({ loraRank: 4 }), await training({ loraRank: 1 }), await training({ batchSize: 2 })] // biome-ignore format: one line
    assert.equal(all.trainedParameters, parameters)
    assert.equal(lora.trainedParameters, 4 * one.trainedParameters)
    assert.ok(lora.bytes < all.bytes && all.bytes < double.bytes)
    assert.ok((await training({ gradientCheckpointing: true })).bytes < all.bytes)
    assert.ok((await training({ packing: 4096 })).parts.activations! > all.parts.activations!)
  })

  it('times follow from the measured speed', async () => {
    const speed = measureSpeed()
    assert.ok(speed.flops > 0 && speed.bytesPerSecond > 0)
    const at = async (factor: number) => {
      const scaled = { flops: speed.flops * factor, bytesPerSecond: speed.bytesPerSecond * factor }
      return (await plan(demoModel, { images: [image], speed: scaled, train: {} })).precisions[0]!.seconds!
    }
    const [slow, fast] = [await at(1), await at(2)]
    assert.ok(Math.abs(slow.total / fast.total - 2) < 1e-9)
    assert.ok(slow.firstToken > slow.token)
  })

  it('on the command line: a table, or JSON; without a request the modules, as before', async () => {
    const text = await printed(demoModel, '--image', image, '--max-patches', '2', '--train', 'lora', '--no-speed')
    assert.match(text, /image +\S+circle\.png: \d+ tiles?.*tokens/)
    assert.match(text, /int4 +[\d.]+ [MG]B +yes/)
    assert.match(text, /training +[\d,]+ parameters/)
    const { plan: found } = JSON.parse(await printed(demoModel, '--image', image, '--json', '--no-speed')) as { plan: Plan }
    assert.equal(found.media[0]!.source, image)
    assert.equal(found.precisions[0]!.seconds, undefined)
    assert.match(await printed(demoModel), /^module +shape/)
    await assert.rejects(printed(demoModel, '--image', '/none.png', '--no-speed'), /none\.png: no such image/)
  })
})
