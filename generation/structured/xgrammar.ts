import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { compileFunction } from 'node:vm'
import type * as XGrammar from '@mlc-ai/web-xgrammar'

const require = createRequire(import.meta.url)

/**
 * Loads XGrammar. The package declares its one file, which is CommonJS, as an ES module: `import` gives no exports, so the file is
 * evaluated as CommonJS here, with a `require` in place of its one dynamic import.
 */
export const loadXGrammar = async (): Promise<typeof XGrammar> => {
  const filename = require.resolve('@mlc-ai/web-xgrammar')
  const source = (await readFile(filename, 'utf8')).replace("await import('module')", "require('module')")
  const module = { exports: {} }
  const evaluate = compileFunction(source, ['exports', 'module', 'require', '__filename', '__dirname'], { filename })
  evaluate(module.exports, module, require, filename, dirname(filename))
  return module.exports as typeof XGrammar
}
