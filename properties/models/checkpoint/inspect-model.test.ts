import assert from 'node:assert/strict'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { demoModel } from '../../../generation/checkpoint/load.js'
import { selectEngine } from '../../../lib/engines/index.js'
import { orThrow } from '../../../lib/error.js'
import { countParameters, declarations, disposeParams } from '../../../lib/params.js'
import { wholeFile } from '../../../lib/safetensors/read.js'
import { type InspectedNode, inspectModel } from '../../../models/checkpoint/inspect-model.js'
import { saveModel } from '../../../models/checkpoint/save-model.js'
import { internVL } from '../../../models/internvl/internvl.js'
import { hfJson } from '../../arbitraries/config.js'
import { checkAsync } from '../../laws/check.js'
import { inFolder, modelJson, smallModel } from '../folders.js'

const leavesOf = (node: InspectedNode): readonly InspectedNode[] => (node.shape ? [node] : node.children.flatMap(leavesOf))
const nodesOf = (node: InspectedNode): readonly InspectedNode[] => [node, ...node.children.flatMap(nodesOf)]

describe('inspecting a model', () => {
  it('every level sums its subtree; the leaves are the declared parameters, in order; the bytes are those of the file', () =>
    checkAsync(
      fc.record({
        json: hfJson,
        dtype: fc.constantFrom('float32', 'bfloat16' as const),
        layout: fc.constantFrom('hf', 'original' as const)
      }),
      async ({ json, dtype, layout }) => {
        const { config, params } = smallModel(json)
        await inFolder(async (folder) => {
          await orThrow(saveModel(folder, { config, params, dtype, layout }))
          const { tree, float32Bytes, issues, config: found } = await orThrow(inspectModel(folder))
          const module = internVL(found)
          assert.deepEqual(issues, [])
          assert.deepEqual(
            leavesOf(tree).map(({ path, shape }) => [path, shape]),
            declarations(module).map(([path, { shape }]) => [path, shape])
          )
          for (const { children, parameters, bytes, path } of nodesOf(tree).filter((node) => !node.shape)) {
            assert.equal(
              parameters,
              children.reduce((n, child) => n + child.parameters, 0),
              path
            )
            assert.equal(
              bytes,
              children.reduce((n, child) => n + child.bytes, 0),
              path
            )
          }
          assert.equal(tree.parameters, countParameters(module))
          assert.equal(float32Bytes, 4 * tree.parameters)
          assert.equal(tree.bytes, (dtype === 'float32' ? 4 : 2) * tree.parameters)
          const { size } = await stat(join(folder, wholeFile))
          assert.ok(size > tree.bytes && size < tree.bytes + 100_000)
        })
        disposeParams(params)
      },
      10
    ))

  it('the memory of each precision does not depend on the engine', async () => {
    const { name: engineBefore } = await selectEngine()
    await selectEngine({ engine: 'cpu' })
    try {
      const { needs } = await orThrow(inspectModel(demoModel))
      const bytes = Object.fromEntries(needs.map((need) => [need.name, need.bytes]))
      for (const [more, less] of [['float32', 'bfloat16'], ['bfloat16', 'int8'], ['int8', 'int4']] as const) // biome-ignore format: pairs
        assert.ok(bytes[more]! > bytes[less]!, `${more} ${bytes[more]}, ${less} ${bytes[less]}`)
    } finally {
      await selectEngine({ engine: engineBefore })
    }
  })

  it('missing, unexpected and mismatched keys are in the report', async () => {
    const { config, params } = smallModel(modelJson('qwen2'))
    await inFolder(async (folder) => {
      await orThrow(saveModel(folder, { config, params }))
      const configure = (c: typeof config) => ({
        ...c,
        visionConfig: { ...c.visionConfig, useQkNorm: true, intermediateSize: 7 }
      })
      const { issues, tree } = await orThrow(inspectModel(folder, { configure }))
      assert.deepEqual(new Set(issues.map(({ _tag }) => _tag)), new Set(['MissingKey', 'ShapeMismatch']))
      const missing = nodesOf(tree).find(({ path }) => path.endsWith('attention.q_norm'))
      assert.deepEqual([missing?.dtypes, missing?.bytes, missing?.parameters], [[], 0, 8])
    })
    disposeParams(params)
  })
})
