import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import { demoModel } from '../../generation/checkpoint/load.js'
import { autoSetup } from '../../generation/cli/commands/setup-command.js'
import { positiveInteger } from '../../generation/cli/common.js'
import { describeGpu, findGpus } from '../../lib/engines/gpus.js'
import { selectEngine } from '../../lib/engines/index.js'
import { usesTensorflowOps } from '../../lib/ops/kernel.js'
import { quantizations } from '../../models/quantization/precision.js'
import { machineName } from '../bench/report/bench-history.js'
import { bench, type CheckOptions, conformance, demoEvaluation, leaks } from './check-parts.js'
import { checkPage, runSections, type Section } from './check-section.js'
import { quantizedWeights } from './quantized-weights.js'

const folderOf = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

interface Flags {
  readonly minutes: number
  readonly cases: string
  readonly images: string
  readonly checkpoint: string
  readonly out: string
  readonly compare?: true
}

const say = (line: string): void => void process.stderr.write(`${line}\n`)

/** The parts of the check; with less than five minutes every part is smaller. */
const partsOf = ({ compare, minutes, ...folders }: Flags): readonly Section[] => {
  const isLong = minutes >= 5
  const sizes = isLong ? { generations: 500, scenes: 200 } : { generations: 50, scenes: 20 }
  const options: CheckOptions = { ...folders, ...sizes, compare: compare === true }
  const runs = isLong ? ['--runs', '3', '--new-tokens', '32'] : ['--runs', '1', '--new-tokens', '8']
  const precision = isLong ? 'float32,bfloat16,int8,int4' : 'bfloat16,int4'
  return [
    conformance(options),
    ...(['bfloat16', 'float16'] as const).map((name) => conformance(options, name)),
    ...quantizations.map(quantizedWeights),
    leaks(options),
    demoEvaluation(options),
    bench(options, 'speed', ['--precision', precision, ...runs]),
    bench(options, 'LoRA step', ['--train', '--steps', isLong ? '6' : '2'])
  ]
}

const check = async (flags: Flags): Promise<void> => {
  const { minutes, checkpoint, out } = flags
  const deadline = performance.now() + minutes * 60_000
  await autoSetup()
  const { name, version, devices } = await selectEngine()
  if (!usesTensorflowOps())
    throw new RangeError(
      `TensorFlow found no GPU (engine ${name}, devices ${devices.join(', ')}); INTERNVL_KERNELS=tensorflow checks this script on a CPU`
    )
  await mkdir(out, { recursive: true })
  const results = await runSections(partsOf(flags), deadline, say)
  const gpus = findGpus()
  const facts = {
    date: new Date().toISOString(),
    machine: machineName(),
    gpu: gpus.map(describeGpu).join('; ') || 'none: run on the CPU, as a test of this script',
    engine: `${name}, TensorFlow ${version}, ${devices.join(', ')}`,
    checkpoint
  }
  const [json, page] = [join(out, 'check-gpu.json'), join(out, 'check-gpu.md')]
  await writeFile(json, `${JSON.stringify({ ...facts, gpus, results }, null, 2)}\n`)
  await writeFile(page, checkPage('GPU check', facts, results))
  say(`results: ${json}, ${page}`)
  if (results.some(({ state }) => state === 'failed')) process.exitCode = 1
}

await new Command('check:gpu')
  .description('check all that needs a GPU: results by precision, leaks, speed, a training step; writes a JSON file and a page')
  .option('--minutes <n>', 'no part begins after this time; below 5, every part is smaller', positiveInteger, 8)
  .option('--cases <dir>', 'folder of reference cases', folderOf('../conformance/relatives'))
  .option('--images <dir>', 'folder of the images that the cases name', folderOf('../../generation/demo'))
  .option('--checkpoint <dir>', 'checkpoint whose speed is measured, as `npm run bench:checkpoint` writes one', demoModel)
  .option('--compare', 'also measure Transformers and PEFT on the same card (npm run bench:setup first)')
  .option('--out <dir>', 'folder of the results', 'out/check-gpu')
  .action(check)
  .parseAsync()
  .catch((error: Error) => {
    say(`check:gpu: ${error.message}`)
    process.exitCode = 1
  })
