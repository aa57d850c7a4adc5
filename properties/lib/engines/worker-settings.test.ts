import * as assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { installedFolder } from '../../../lib/engines/loaders.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))

/** Standard output and standard error of Node with these arguments, without TensorFlow's settings of this process. */
const outputOf = (...args: readonly string[]): readonly [stdout: string, stderr: string] => {
  const { TF_CPP_MIN_LOG_LEVEL: _, ...env } = process.env
  const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, env, encoding: 'utf8' })
  return [stdout.trim(), stderr.trim()]
}

describe('output of TensorFlow', () => {
  it('an engine that is first loaded in a worker thread logs nothing', async function () {
    const folder = await installedFolder()
    if (E.isLeft(folder)) return this.skip()
    const { format } = JSON.parse(readFileSync(join(folder.right, 'manifest.json'), 'utf8')) as { readonly format: number }
    if (format < 3) return this.skip() // the addon of an older set-up; `setup --force` builds the current one
    assert.deepEqual(outputOf('properties/lib/engines/load-in-worker.mjs'), ['native', ''])
  })

  it('a processor alone prints no hint to install a backend', () => {
    const script = `import('./lib/tf.ts').then(({ tf }) => console.log(tf.tensor1d([1, 2]).sum().dataSync()[0]))`
    assert.deepEqual(outputOf('--import', 'tsx', '-e', script), ['3', ''])
  })

  it('the addon reads the settings before TensorFlow starts', () => {
    const [addon, native] = ['lib/engines/addon/environment.cc', 'lib/engines/native.ts'].map((file) =>
      readFileSync(join(root, file), 'utf8')
    )
    assert.match(addon!, /"TF_CPP_MIN_LOG_LEVEL"[\s\S]*setenv/)
    assert.match(native!, /require\(environment\)[\s\S]*tfjs_binding\.node/)
  })
})
