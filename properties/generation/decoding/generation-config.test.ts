import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { generationConfig, readGenerationConfig } from '../../../generation/decoding/generation-config.js'
import { checkOptions } from '../../../generation/decoding/options/check-options.js'

describe('generation config', () => {
  it('has the options of the file and no others', () => {
    const json = {
      eos_token_id: [2, 3],
      pad_token_id: 0,
      do_sample: true,
      top_k: null,
      top_p: 0.8,
      transformers_version: '5.23.0'
    }
    assert.deepEqual(generationConfig(json), E.right({ eosTokenIds: [2, 3], padTokenId: 0, doSample: true, topP: 0.8 }))
    assert.deepEqual(generationConfig({ eos_token_id: 7, pad_token_id: -1 }), E.right({ eosTokenIds: [7] }))
  })

  it('reports all errors by key', () => {
    const result = generationConfig({ eos_token_id: 'x', temperature: -1, top_p: 2, num_beams: 0, max_new_tokens: 3 })
    assert.deepEqual(E.isLeft(result) && result.left.map(({ path }) => path), [
      'eos_token_id',
      'temperature',
      'top_p',
      'num_beams'
    ])
    assert.ok(E.isLeft(generationConfig([])))
  })

  it('numbers out of range are errors by key, with the ranges of the options', () => {
    const beyond = { num_beams: 1e6, num_return_sequences: 1e6, max_new_tokens: 1e12, eos_token_id: [2, 1e12], top_k: 2 ** 31 }
    const result = generationConfig({ ...beyond, bad_words_ids: [[1e12]], length_penalty: 1e9, min_length: 1e300 })
    assert.deepEqual(E.isLeft(result) && result.left.map(({ path }) => path).sort(), [
      'bad_words_ids',
      'eos_token_id',
      'length_penalty',
      'max_new_tokens',
      'min_length',
      'num_beams',
      'num_return_sequences',
      'top_k'
    ])
  })

  it('a decay of end tokens that the file may have, generation may have', () =>
    fc.assert(
      fc.property(fc.double({ min: -2, max: 9 }), fc.double({ min: -2, max: 9 }), (start, factor) => {
        const config = generationConfig({ exponential_decay_length_penalty: [start, factor] })
        if (E.isRight(config)) checkOptions(config.right)
      }),
      { examples: [[1.5, 2]] }
    ))

  it('takes the end tokens of config.json where a folder has no generation_config.json', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'generation-'))
    const put = (name: string, value: unknown) => writeFile(join(dir, name), JSON.stringify(value))
    assert.deepEqual(await readGenerationConfig(dir)(), E.right({}))
    await put('config.json', { eos_token_id: null, text_config: { eos_token_id: 5, pad_token_id: 1 } })
    assert.deepEqual(await readGenerationConfig(dir)(), E.right({ eosTokenIds: [5], padTokenId: 1 }))
    await put('generation_config.json', { max_new_tokens: 9 })
    assert.deepEqual(await readGenerationConfig(dir)(), E.right({ maxNewTokens: 9 }))
    await writeFile(join(dir, 'generation_config.json'), '{')
    const broken = await readGenerationConfig(dir)()
    assert.ok(E.isLeft(broken) && broken.left[0]._tag === 'ConfigNotJson')
    await rm(dir, { recursive: true })
  })
})
