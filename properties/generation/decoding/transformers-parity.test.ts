import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { generateAll, padSequences } from '../../../generation/decoding/generate.js'
import { generationConfig } from '../../../generation/decoding/generation-config.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import { tf } from '../../../lib/tf.js'
import { type LoadedModel, loadModel } from '../../../models/checkpoint/load-model.js'

interface Case {
  readonly ids: number[][]
  readonly mask: number[][]
  /** Options by their names in Python. */
  readonly options: Record<string, unknown>
  readonly tokens: number[][]
  readonly scores: number[] | null
}

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url))
const reference: { eos: number; pad: number; cases: Case[] } = JSON.parse(
  readFileSync(path('../../reference/generation.json'), 'utf8')
)

/** Results of Transformers 5.24, by `properties/reference/make_generation.py`. */
describe('generate, beside Transformers', () => {
  let loaded: LoadedModel
  before(async () => {
    loaded = await orThrow(loadModel(path('../../../models/demo')))
  })
  after(() => loaded.dispose())

  const names = [
    ...new Set(
      reference.cases.map(({ options }) =>
        Object.keys(options)
          .filter((key) => key !== 'max_new_tokens')
          .join(', ')
      )
    )
  ]
  for (const name of names) {
    it(`${name}: the same tokens and scores`, async () => {
      for (const { ids, mask, options, tokens, scores } of reference.cases) {
        if (
          Object.keys(options)
            .filter((key) => key !== 'max_new_tokens')
            .join(', ') !== name
        )
          continue
        const json = { eos_token_id: reference.eos, pad_token_id: reference.pad, ...options }
        const o = getOrThrow(generationConfig(json))
        const shape: [number, number] = [ids.length, ids[0]!.length]
        const inputs = { inputIds: tf.tensor2d(ids, shape, 'int32'), attentionMask: tf.tensor2d(mask, shape, 'int32') }
        const result = await generateAll(loaded.model, inputs, o)
        tf.dispose([inputs.inputIds, inputs.attentionMask])
        assert.deepEqual(padSequences(result.sequences, o), tokens, JSON.stringify(options))
        for (const [i, score] of (scores ?? []).entries())
          assert.ok(Math.abs(score - result.scores![i]!) < 2e-4 * Math.max(1, Math.abs(score)), `${score} ${result.scores}`)
      }
    })
  }
})
