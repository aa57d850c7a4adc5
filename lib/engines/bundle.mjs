// Run by `npm run build`: puts the two parts of @tensorflow/tfjs-node-gpu (Apache-2.0) that the native engine needs beside the built
// engines, so that the published package does not depend on it: its install script downloads, and fails where it can't.
import { cpSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('../..', import.meta.url))
const out = join(process.argv[2] ?? join(root, 'dist'), 'lib', 'engines')
const source = dirname(createRequire(import.meta.url).resolve('@tensorflow/tfjs-node-gpu/package.json'))

/** Only TensorBoard's histograms read protocol buffers; and one kernel imports the core past the union package. */
const trimmed = {
  name: 'trimmed',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /proto\/api_pb$/ }, () => ({ path: 'api_pb', namespace: 'empty' }))
    onLoad({ filter: /.*/, namespace: 'empty' }, () => ({ contents: 'module.exports = {}' }))
    onResolve({ filter: /^@tensorflow\/tfjs-core$/ }, () => ({ path: '@tensorflow/tfjs', external: true }))
  }
}

mkdirSync(out, { recursive: true })
await build({
  stdin: {
    contents: `require('./dist/register_all_kernels'); module.exports = require('./dist/nodejs_kernel_backend')`,
    resolveDir: source
  },
  outfile: join(out, 'tfjs-node.cjs'),
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  external: ['@tensorflow/tfjs'],
  plugins: [trimmed],
  legalComments: 'none',
  banner: { js: '/*! Bundled from @tensorflow/tfjs-node-gpu. Copyright Google LLC. Licensed under the Apache License, Version 2.0. */' },
  logLevel: 'warning'
})
cpSync(join(source, 'binding'), join(out, 'binding'), { recursive: true })
cpSync(join(root, 'lib', 'engines', 'kernels'), join(out, 'kernels'), {
  recursive: true,
  filter: (path) => !path.endsWith('.ts')
})
