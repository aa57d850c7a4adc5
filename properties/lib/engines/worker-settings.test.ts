import * as assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { withThreadSettings } from '../../../lib/engines/install/compile-addon.js'
import { installedFolder } from '../../../lib/engines/loaders.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))

/** Standard output and standard error of Node with these arguments, without TensorFlow's settings of this process. */
const outputOf = (...args: readonly string[]): readonly [stdout: string, stderr: string] => {
  const { TF_CPP_MIN_LOG_LEVEL: _, ...env } = process.env
  const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, env, encoding: 'utf8' })
  return [stdout.trim(), stderr.trim()]
}

/**
 * Standard error without the information that TensorFlow prints while its library is loaded. On processors with VNNI or AMX that happens before
 * the addon can set the log level of a process whose first use of TensorFlow is in a worker thread.
 */
const withoutLoadInformation = (stderr: string): string =>
  stderr
    .split('\n')
    .filter(
      (line) =>
        !/: I tensorflow\/core\/(util\/port|platform\/cpu_feature_guard)\.cc:/.test(line) &&
        !line.startsWith('To enable the following')
    )
    .join('\n')

describe('output of TensorFlow', () => {
  it('an engine that is first loaded in a worker thread logs no more than the information of its library', async function () {
    const folder = await installedFolder()
    if (E.isLeft(folder)) return this.skip()
    const { format } = JSON.parse(readFileSync(join(folder.right, 'manifest.json'), 'utf8')) as { readonly format: number }
    if (format < 3) return this.skip() // the addon of an older set-up; `setup --force` builds the current one
    const [stdout, stderr] = outputOf('properties/lib/engines/load-in-worker.mjs')
    assert.deepEqual([stdout, withoutLoadInformation(stderr)], ['native', ''])
  })

  it('a processor alone prints no hint to install a backend', () => {
    const script = `import('./lib/tf.ts').then(({ tf }) => console.log(tf.tensor1d([1, 2]).sum().dataSync()[0]))`
    assert.deepEqual(outputOf('--import', 'tsx', '-e', script), ['3', ''])
  })

  it('the addon reads the settings before TensorFlow starts', () => {
    const source = readFileSync(join(root, 'node_modules/@tensorflow/tfjs-node-gpu/binding/tfjs_binding.cc'), 'utf8')
    assert.match(withThreadSettings(source), /"TF_CPP_MIN_LOG_LEVEL"[\s\S]*setenv[\s\S]*TFJSBackend::Create\(env\)/)
  })
})
