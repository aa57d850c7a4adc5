// Run by `npm run build:wasm`: compiles assembly/ (AssemblyScript) to kernels.wasm, which is committed, so that neither a clone nor
// the package needs the compiler. A property holds that it is what the source compiles to.
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import asc from 'assemblyscript/asc'

const folder = new URL('assembly/', import.meta.url)
const options = '-O3 --runtime stub --importMemory --noExportMemory --noAssert --disableWarning 112 --enable simd,bulk-memory'

const read = (name: string): string | null => {
  try {
    return readFileSync(new URL(name, folder), 'utf8')
  } catch {
    return null // the compiler asks for names that may not be there
  }
}

/** The module that the source compiles to. Throws with what the compiler said. */
export const compile = async (): Promise<Uint8Array> => {
  const outputs = new Map<string, string | Uint8Array>()
  const { error, stderr } = await asc.main(['index.ts', '-o', 'kernels.wasm', ...options.split(' ')], {
    readFile: read,
    writeFile: (name, contents) => void outputs.set(name, contents),
    listFiles: () => []
  })
  if (error) throw new Error(`${error.message}\n${stderr}`)
  return outputs.get('kernels.wasm') as Uint8Array
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(new URL('kernels.wasm', import.meta.url), await compile())
