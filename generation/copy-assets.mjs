// Run by `npm run build`: puts what is no TypeScript beside the built files that read it.
import { cpSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url))
for (const folder of ['models/demo', 'generation/demo', 'lib/engines/kernels', 'lib/engines/addon'])
  cpSync(root(folder), root(`dist/${folder}`), { recursive: true, filter: (path) => !path.endsWith('.ts') })
cpSync(root('lib/engines/wasm-kernels/kernels.wasm'), root('dist/lib/engines/wasm-kernels/kernels.wasm'))
cpSync(root('generation/server/page/dist/index.html'), root('dist/generation/server/page/index.html'))
