import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { bytesOf } from '../../../lib/dtype.js'
import { blockFormats, dequantizeBlocks, type GgufType } from '../../../models/gguf/dequantize.js'

const blocks = JSON.parse(readFileSync(new URL('../../reference/formats/gguf-blocks.json', import.meta.url), 'utf8')) as Record<
  GgufType,
  readonly [blocks: string, weights: string]
>

describe('blocks of GGUF', () => {
  for (const type of Object.keys(blockFormats) as GgufType[])
    it(`${type}: the weights are those of the gguf package, bit for bit`, () => {
      const [bytes, weights] = blocks[type].map((text) => Buffer.from(text, 'base64')) as [Buffer, Buffer]
      assert.deepEqual(Buffer.from(bytesOf(dequantizeBlocks(bytes, type))), weights)
      assert.equal(bytes.length / blockFormats[type].bytes, weights.length / 4 / blockFormats[type].weights)
    })
})
