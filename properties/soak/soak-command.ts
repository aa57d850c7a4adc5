import { mkdir, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Command, InvalidArgumentError } from 'commander'
import { autoSetup } from '../../generation/cli/commands/setup-command.js'
import { linePlots } from '../../generation/plot.js'
import { selectEngine } from '../../lib/engines/index.js'
import { defaultSizes, growthOf, linesOf, type Part, type SoakSample, type SoakSizes, soak } from './soak.js'

interface Flags extends SoakSizes {
  readonly seed: number
  readonly model?: string
  readonly plot: string
  readonly data?: string
}

const defaultPlot = fileURLToPath(new URL('../../docs/public/soak.png', import.meta.url))
/** Largest growth of resident memory over a part, in MiB, above which the command fails. */
const maxGrowth = 40

const whole = (text: string): number => {
  const value = Number(text)
  if (text.trim() !== '' && Number.isSafeInteger(value) && value >= 0) return value
  throw new InvalidArgumentError('Use a whole number of 0 or more.')
}

const draw = (samples: readonly SoakSample[], sizes: SoakSizes): Promise<Uint8Array> => {
  const names = (part: Part) => `${sizes[part]} ${part === 'streams' ? 'streams left early' : part}`
  const x = 'share of the part that is done (%)'
  return linePlots([
    { title: 'Tensors', x, y: 'tensors', series: linesOf(samples, ({ tensors }) => tensors, names) },
    { title: 'Resident memory', x, y: 'MiB', series: linesOf(samples, ({ residentMegabytes }) => residentMegabytes, names) }
  ])
}

const run = async ({ seed, model, plot, data, ...sizes }: Flags): Promise<void> => {
  await autoSetup()
  const engine = await selectEngine()
  setFlagsFromString('--expose-gc')
  globalThis.gc ??= runInNewContext('gc') // samples are taken after a collection
  process.stderr.write(`engine: ${engine.name} ${engine.version}; seed ${seed}\n`)
  const start = performance.now()
  const samples = await soak({
    seed,
    model,
    ...sizes,
    onSample: ({ part, done, tensors, tensorMegabytes, residentMegabytes }) =>
      process.stderr.write(`${part} ${(100 * done).toFixed(0)} %: ${tensors} tensors, ${tensorMegabytes.toFixed(1)} MiB; resident ${residentMegabytes.toFixed(0)} MiB\n`) // biome-ignore format: one line
  })
  for (const part of Object.keys(defaultSizes) as Part[]) {
    const growth = growthOf(samples, part)
    if (!growth) continue
    const isFlat = growth.tensors === 0 && growth.residentMegabytes < maxGrowth
    console.log(`${part}: ${sizes[part]}; tensors ${growth.tensors >= 0 ? '+' : ''}${growth.tensors}, resident memory ${growth.residentMegabytes.toFixed(1)} MiB along the fitted line${isFlat ? '' : '; NOT FLAT'}`) // biome-ignore format: one line
    if (!isFlat) process.exitCode = 1
  }
  console.log(`${((performance.now() - start) / 60_000).toFixed(1)} minutes`)
  if (data) await writeFile(data, JSON.stringify(samples))
  if (samples.length === 0) return
  await mkdir(dirname(plot), { recursive: true })
  await writeFile(plot, await draw(samples, sizes))
  console.log(plot)
}

await new Command('soak')
  .description('generate, chat, leave streams and load again and again, and plot the number of tensors and the resident memory')
  .option('--generations <n>', 'generations', whole, defaultSizes.generations)
  .option('--chats <n>', 'chats of one to four turns', whole, defaultSizes.chats)
  .option('--streams <n>', 'streams that are left at random moments', whole, defaultSizes.streams)
  .option('--loads <n>', 'loads of the model', whole, defaultSizes.loads)
  .option('--seed <n>', 'seed of texts, images and moments', whole, 1)
  .option('--model <dir>', 'folder of the model; the demo model by default')
  .option('--plot <file>', 'PNG file of the plot', defaultPlot)
  .option('--data <file>', 'JSON file of all samples')
  .action(run)
  .parseAsync()
  .catch((error: Error) => {
    process.stderr.write(`soak: ${error.message}\n`)
    process.exitCode = 1
  })
