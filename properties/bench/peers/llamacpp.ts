import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { output } from '../processes.js'
import { pythonWith, workshop } from './python.js'

const how = '`npm run bench:setup -- --llamacpp` installs it'

/** The folder in which node-llama-cpp is installed. Throws a `RangeError` with the install command if it is missing. */
export const llamaModules = (): string => {
  const modules = process.env.BENCH_LLAMACPP ?? join(workshop, 'node_modules')
  if (!existsSync(join(modules, 'node-llama-cpp'))) throw new RangeError(`${modules}: node-llama-cpp is not installed; ${how}`)
  return modules
}

/** Throws a `RangeError` for a folder whose decoder cannot be written as GGUF. */
const checkDecoder = (checkpoint: string): void => {
  const type = JSON.parse(readFileSync(join(checkpoint, 'config.json'), 'utf8')).text_config?.model_type
  if (type !== 'qwen2')
    throw new RangeError(`--llamacpp: ${checkpoint} has a decoder of type ${JSON.stringify(type)}; supported is "qwen2"`)
  if (!existsSync(join(checkpoint, 'model.safetensors')))
    throw new RangeError(
      `--llamacpp: ${checkpoint} has no model.safetensors; \`npm run bench:checkpoint\` writes a folder with one`
    )
}

/** Checks everything that llama.cpp needs. Throws a `RangeError` for a missing part, before anything is measured. */
export const checkLlamaCpp = (checkpoints: readonly string[]): void => {
  llamaModules()
  pythonWith('gguf', how)
  for (const checkpoint of checkpoints) checkDecoder(checkpoint)
}

/** The folder's decoder as a GGUF file, written on first use. */
export const ggufOf = async (checkpoint: string, type: string): Promise<string> => {
  const weights = join(resolve(checkpoint), 'model.safetensors')
  const name = createHash('sha256')
    .update(`${weights} ${statSync(weights).mtimeMs}`)
    .digest('hex')
    .slice(0, 16)
  const file = join(workshop, 'gguf', `${name}-${type}.gguf`)
  if (existsSync(file)) return file
  mkdirSync(join(workshop, 'gguf'), { recursive: true })
  const script = fileURLToPath(new URL('random_gguf.py', import.meta.url))
  await output(pythonWith('gguf', how), [script, '--checkpoint', checkpoint, '--type', type, '--out', `${file}.part`])
  renameSync(`${file}.part`, file)
  return file
}
