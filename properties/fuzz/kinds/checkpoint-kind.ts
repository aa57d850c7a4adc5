import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { inspect } from '../../../generation/checkpoint/inspect.js'
import { type LoadOptions, load } from '../../../generation/checkpoint/load.js'
import { shortTexts, values } from '../awkward.js'
import { checkedAnswer } from '../calls.js'
import { type ByteEdit, byteEdits, editBytes } from '../edits.js'
import { copyWith } from '../fixture.js'
import { editTensors, type TensorEdit, tensorEdits } from '../safetensors-edits.js'
import { attempt } from '../verdict.js'
import { fuzzKind } from './fuzz-kind.js'

interface Input {
  readonly sharded: boolean
  /** Number of the shard that is changed, modulo the number of shards. */
  readonly shard: number
  readonly tensors: readonly TensorEdit[]
  readonly bytes: readonly ByteEdit[]
  /** Entries of the index that are set: the number of the key, and the value. */
  readonly index: readonly (readonly [key: number, value: unknown])[]
  readonly options: Pick<LoadOptions, 'quantize' | 'dtype'>
}

const shardNames = fc.constantFrom('model-00001-of-00002.safetensors', '../single/model.safetensors', 'config.json', '.', '')

/** Safetensors headers, shards and indexes: entries, lengths, offsets, types, keys, NaN and infinities among the weights. */
export const checkpointKind = fuzzKind<Input>({
  name: 'checkpoint',
  arbitrary: fc.record({
    sharded: fc.boolean(),
    shard: fc.nat(20),
    tensors: tensorEdits,
    bytes: fc.oneof({ weight: 2, arbitrary: fc.constant<readonly ByteEdit[]>([]) }, { weight: 1, arbitrary: byteEdits(3) }),
    index: fc.array(fc.tuple(fc.nat(100), fc.oneof(shardNames, shortTexts, values)), { maxLength: 2 }),
    options: fc.constantFrom<Input['options']>({}, {}, { quantize: 'int8' }, { quantize: 'int4' }, { dtype: 'bfloat16' })
  }),
  run: async ({ sharded, shard, tensors, bytes, index, options }, fixture) => {
    const base = sharded ? fixture.sharded : fixture.single
    const shards = readdirSync(base)
      .filter((name) => name.endsWith('.safetensors'))
      .sort()
    const name = shards[shard % shards.length]!
    const files: Record<string, string | Uint8Array> = {
      [name]: editBytes(editTensors(readFileSync(join(base, name)), tensors), bytes)
    }
    if (sharded && index.length > 0) {
      const json = JSON.parse(readFileSync(join(base, 'model.safetensors.index.json'), 'utf8'))
      const keys = Object.keys(json.weight_map)
      for (const [key, value] of index) json.weight_map[keys[key % keys.length]!] = value
      files['model.safetensors.index.json'] = JSON.stringify(json)
    }
    const dir = copyWith(fixture, base, files)
    await attempt(() => inspect(dir))
    const internvl = await load(dir, options)
    try {
      await checkedAnswer(internvl)
      return true
    } finally {
      internvl.dispose()
    }
  }
})
