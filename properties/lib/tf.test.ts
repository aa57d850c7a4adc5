import * as assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { tf } from '../../lib/tf.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const folders = ['lib', 'models', 'processors', 'generation', 'properties']

describe('tf', () => {
  it('is the only import of TensorFlow.js, apart from the engines', () => {
    const files = folders.flatMap((folder) =>
      (readdirSync(join(root, folder), { recursive: true }) as string[]).map((path) => join(folder, path))
    )
    const importing = files.filter(
      (path) =>
        /\.[cm]?tsx?$/.test(path) && /from '@tensorflow\/|import\('@tensorflow\//.test(readFileSync(join(root, path), 'utf8'))
    )
    assert.deepEqual(importing.filter((path) => path !== join('properties', 'lib', 'tf.test.ts')).sort(), [
      join('lib', 'engines', 'wasm.ts'),
      join('lib', 'tf.ts')
    ])
  })

  it('chains methods on tensors', () => {
    assert.equal(
      tf.tidy(() => tf.tensor1d([1, 2, 3]).mul(2).sum().dataSync()[0]),
      12
    )
  })
})
