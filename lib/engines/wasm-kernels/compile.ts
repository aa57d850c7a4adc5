// `npm run build:wasm` compiles assembly/ (AssemblyScript) to kernels.wasm. The binary is committed, so neither a clone nor the package
// needs the compiler. A test compares the binary with the compiled source.
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import asc from 'assemblyscript/asc'

const folder = new URL('assembly/', import.meta.url)
const options = '-O3 --runtime stub --importMemory --noExportMemory --noAssert --disableWarning 112 --enable simd,bulk-memory'

const read = (name: string): string | null => {
  try {
    return readFileSync(new URL(name, folder), 'utf8')
  } catch {
    return null // the compiler probes for files that may not exist
  }
}

/** The bytes of the compiled module. Throws with the compiler's messages. */
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
