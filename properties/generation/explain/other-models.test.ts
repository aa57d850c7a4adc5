import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import { demoModel, type LoadOptions, load } from '../../../generation/checkpoint/load.js'
import { explain } from '../../../generation/explain/explain.js'
import { type ExplainMethod, explainMethods } from '../../../generation/explain/methods.js'
import type { Messages } from '../../../processors/text/messages.js'

const shapes = fileURLToPath(new URL('../../../generation/demo/shapes.png', import.meta.url))
const text = 'What color is the shape at the top left?'
const question: Messages = [
  {
    role: 'user',
    content: [
      { type: 'image', path: shapes },
      { type: 'text', text }
    ]
  }
]

/** The map of the first word by each method. */
const mapsOf = async (options: LoadOptions): Promise<ReadonlyMap<ExplainMethod, Float32Array>> => {
  const internvl = await load(demoModel, options)
  const maps = new Map<ExplainMethod, Float32Array>()
  for (const method of explainMethods) {
    const explanation = await explain(internvl, question, { method, token: 'Green', cells: 6, steps: 4 })
    maps.set(method, (await explanation.parts[0]!.map.data()) as Float32Array)
    explanation.dispose()
  }
  internvl.dispose()
  return maps
}

/** Share of the mass that two maps have at different pixels. */
const distance = (a: Float32Array, b: Float32Array): number => a.reduce((sum, value, i) => sum + Math.abs(value - b[i]!), 0) / 2

describe('explain, on quantized weights', () => {
  it('maps are those of float32 weights, within a twentieth of their mass, in bfloat16, int8 and int4', async () => {
    const expected = await mapsOf({})
    for (const options of [{ dtype: 'bfloat16' }, { quantize: 'int8' }, { quantize: 'int4' }] as const)
      for (const [method, map] of await mapsOf(options)) {
        const share = distance(map, expected.get(method)!)
        assert.ok(share < 0.05, `${JSON.stringify(options)} ${method}: ${share}`)
      }
  })
})
