import { writeFile } from 'node:fs/promises'
import { Command, Option } from 'commander'
import sharp from 'sharp'
import { demoModel } from '../../../generation/checkpoint/load.js'
import { autoSetup } from '../../../generation/cli/commands/setup-command.js'
import { positiveInteger } from '../../../generation/cli/common.js'
import { serve } from '../../../generation/server/index.js'
import { isExpectedError } from '../../../lib/error.js'
import { type Quantization, quantizations } from '../../../models/quantization/precision.js'
import { type LoadFigures, loadTable, measureResponses, responseLine, runLoad } from './clients.js'

interface Flags {
  readonly checkpoint: string
  readonly quantize?: Quantization
  readonly clients: readonly number[]
  readonly requests: number
  readonly promptTokens: number
  readonly images: number
  readonly newTokens: number
  readonly maxBatch: number
  readonly json?: string
}

const say = (line: string): void => void process.stderr.write(`${line}\n`)

/** An image of six tiles, 3 by 2, as a data URL. */
const wideImage = async (): Promise<string> => {
  const channels = 3
  const noise = { type: 'gaussian', mean: 128, sigma: 50 } as const
  const image = sharp({ create: { width: 1344, height: 896, channels, background: 'white', noise } })
  return `data:image/png;base64,${(await image.png().toBuffer()).toString('base64')}`
}

const bench = async (flags: Flags): Promise<void> => {
  await autoSetup()
  const { checkpoint, quantize, clients, requests, promptTokens, images, newTokens, maxBatch, json } = flags
  const maxQueue = Math.max(...clients)
  const caches = { prefixCacheBytes: 0, featureCacheBytes: 0 }
  const options = { model: checkpoint, quantize, maxBatch, maxQueue, port: 0, logLevel: 'silent' } as const
  const server = await serve({ ...options, ...caches, onWarning: say })
  const { engine } = server
  try {
    const { precision, loadSeconds, engine: name } = engine.info
    console.log(`${checkpoint}, ${precision}, ${name}, loaded in ${loadSeconds.toFixed(1)} s, batch of at most ${maxBatch}`)
    console.log(`${promptTokens} prompt tokens, ${images} images, ${newTokens} new tokens a request`)
    const load = { requestsPerClient: requests, promptTokens, images, newTokens }
    await runLoad(engine, { ...load, clients: 1, requestsPerClient: 1, newTokens: Math.min(8, newTokens) }, 99) // warm-up
    const figures: LoadFigures[] = []
    for (const count of clients) {
      say(`${count} clients`)
      figures.push(await runLoad(engine, { ...load, clients: count }, count))
    }
    console.log(loadTable(figures))
    if (maxBatch > 1) console.log(responseLine(await measureResponses(server, await wideImage())))
    if (json) await writeFile(json, `${JSON.stringify({ checkpoint, precision, ...load, maxBatch, figures }, null, 2)}\n`)
  } finally {
    await server.close()
  }
}

const examples = `
Each client sends its next request when it has the answer to the last. Every request has a prompt of its own, and the caches of prefixes
and image features are off.

Examples:
  npm run bench:checkpoint -- --like internvl3-1b --out /tmp/1b        full size, random weights
  npm run bench:clients -- --checkpoint /tmp/1b --quantize int8 --clients 1,8`

await new Command('bench:clients')
  .description('load an engine with clients: time to the first token, tokens a second, and the gain of continuous batching')
  .option('--checkpoint <dir>', 'a checkpoint folder; the demo model by default', demoModel)
  .addOption(new Option('--quantize <name>', 'quantization of the weights; float32 by default').choices(quantizations))
  .option('--clients <ns>', 'numbers of clients, such as 1,8', (text) => text.split(',').map(positiveInteger), [1, 8])
  .option('--requests <n>', 'requests of each client', positiveInteger, 3)
  .option('--prompt-tokens <n>', 'text tokens of each prompt', positiveInteger, 64)
  .option('--images <n>', 'images of one tile in each request', (text) => (text === '0' ? 0 : positiveInteger(text)), 0)
  .option('--new-tokens <n>', 'tokens of each answer', positiveInteger, 64)
  .option('--max-batch <n>', 'rows that are decoded together', positiveInteger, 8)
  .option('--json <file>', 'also write the figures as JSON')
  .addHelpText('after', examples)
  .showHelpAfterError('(add --help for all options)')
  .action(bench)
  .parseAsync()
  .catch((error: unknown) => {
    say(`bench:clients: ${isExpectedError(error) ? error.message : (error as Error).stack}`)
    process.exitCode = 1
  })
