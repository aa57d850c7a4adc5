import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { PrecisionName } from '../measure/precisions.js'
import { output } from '../processes.js'
import { pythonWith, workshop } from './python.js'

const how = '`npm run bench:setup -- --openvino` installs it'

/** The Python environment for OpenVINO; optimum-intel needs another version of Transformers than the comparisons. */
export const openvinoEnvironment: string = join(workshop, 'openvino-env')

/** Its interpreter, or `BENCH_OPENVINO_PYTHON`. Throws a `RangeError` with the install command if OpenVINO is missing. */
const openvinoPython = (): string =>
  pythonWith('openvino', how, process.env.BENCH_OPENVINO_PYTHON ?? join(openvinoEnvironment, 'bin', 'python'))

/** OpenVINO's type of weights that a precision is compared with, for the vision tower and for the decoder. */
export const openvinoTypes = {
  vision: { float32: 'f32', bfloat16: undefined, int8: 'int8', int4: undefined },
  decoder: { float32: undefined, bfloat16: undefined, int8: 'int8', int4: 'int4' }
} as const satisfies Readonly<Record<string, Readonly<Record<PrecisionName, string | undefined>>>>

/** Checks everything that OpenVINO needs. Throws a `RangeError` for a missing part, before anything is measured. */
export const checkOpenVino = (checkpoints: readonly string[]): void => {
  openvinoPython()
  for (const checkpoint of checkpoints) {
    const { model_type: type, text_config: text } = JSON.parse(readFileSync(join(checkpoint, 'config.json'), 'utf8'))
    if (type !== 'internvl' || text?.model_type !== 'qwen2')
      throw new RangeError(
        `--openvino: ${checkpoint} is ${type} with a ${text?.model_type} decoder; supported is internvl with qwen2`
      )
  }
}

/** The folder of a checkpoint's vision tower and decoder as OpenVINO's files, converted on first use. */
const convertedFolder = async (checkpoint: string): Promise<string> => {
  const weights = join(resolve(checkpoint), 'model.safetensors')
  const name = createHash('sha256')
    .update(`${weights} ${statSync(weights).mtimeMs}`)
    .digest('hex')
    .slice(0, 16)
  const folder = join(workshop, 'openvino', name)
  if (existsSync(folder)) return folder
  mkdirSync(join(workshop, 'openvino'), { recursive: true })
  const staging = `${folder}.part`
  rmSync(staging, { recursive: true, force: true })
  const script = fileURLToPath(new URL('openvino_convert.py', import.meta.url))
  await output(openvinoPython(), [script, '--checkpoint', checkpoint, '--out', staging])
  renameSync(staging, folder)
  return folder
}

/** Command that measures one part of a checkpoint with OpenVINO, in a process of its own. */
export const openvinoCommand = async (
  checkpoint: string,
  part: 'vision' | 'decoder',
  type: string,
  { size, newTokens, runs }: { readonly size: number; readonly newTokens: number; readonly runs: number }
): Promise<readonly [command: string, args: readonly string[]]> => {
  const folder = await convertedFolder(checkpoint)
  const script = fileURLToPath(new URL('bench_openvino.py', import.meta.url))
  const sizes = part === 'vision' ? ['--tiles', `${size}`] : ['--prompt', `${size}`, '--new-tokens', `${newTokens}`]
  return [openvinoPython(), [script, '--models', folder, '--part', part, '--type', type, ...sizes, '--runs', `${runs}`]]
}
