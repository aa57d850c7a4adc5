// `npm run build` copies the two parts of @tensorflow/tfjs-node-gpu (Apache-2.0) that the native engine needs to the built engines. The
// published package does not depend on @tensorflow/tfjs-node-gpu, whose install script downloads files and fails without a network.
import { cpSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('../..', import.meta.url))
const out = join(process.argv[2] ?? join(root, 'dist'), 'lib', 'engines')
const source = dirname(createRequire(import.meta.url).resolve('@tensorflow/tfjs-node-gpu/package.json'))

/** Leaves out protocol buffers, which only TensorBoard's histograms use, and imports the core through the union package. */
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
