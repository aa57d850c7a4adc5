import { isUtf8 } from 'node:buffer'
import { readFile } from 'node:fs/promises'
import { Command, Option } from 'commander'
import { InternVLError, issue } from '../../../lib/error.js'
import type { ServerOptions } from '../../server/server-options.js'
import {
  appendValue,
  info,
  type ModelFlags,
  portNumber,
  positiveInteger,
  resolveModelFolder,
  withLoadOptions
} from '../common.js'
import { precisionOptions } from '../flags/precision-flags.js'

interface ServeFlags extends ModelFlags {
  readonly host: string
  readonly port: number
  readonly apiKey?: readonly string[]
  readonly insecure?: true
  readonly name?: string
  readonly maxBatch?: number
  readonly queue?: number
  readonly allowMediaDomain?: readonly string[]
  readonly corsOrigin?: readonly string[]
  readonly chatTemplate?: string
  readonly ui: boolean
  readonly logPrompts?: true
  readonly logLevel: NonNullable<ServerOptions['logLevel']>
}

const readTemplate = async (path: string): Promise<string> => {
  const refuse = (reason: string): never => {
    throw new InternVLError([issue('NotFound', `--chat-template ${path}: ${reason}`, { path })])
  }
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) =>
    refuse(`not readable (${error.code ?? error.message})`)
  )
  if (!isUtf8(bytes) || bytes.includes(0)) refuse('not a text')
  return bytes.toString('utf8')
}

/** Keys of the flags and of the environment, where other users of the machine do not see them. */
const keysOf = ({ apiKey = [] }: ServeFlags): readonly string[] => [
  ...apiKey,
  ...(process.env.INTERNVL_API_KEY ? [process.env.INTERNVL_API_KEY] : [])
]

const toServerOptions = async (model: string | undefined, flags: ServeFlags): Promise<ServerOptions> => {
  const {
    host,
    port,
    insecure,
    name,
    maxBatch,
    queue,
    ui,
    logPrompts,
    logLevel,
    engine,
    adapter,
    maxPatches,
    imageBackend,
    parts
  } = flags
  const chatTemplate = flags.chatTemplate === undefined ? undefined : await readTemplate(flags.chatTemplate)
  const defaults = {
    ...(maxPatches === undefined ? {} : { maxPatches }),
    ...(chatTemplate === undefined ? {} : { chatTemplate })
  }
  return {
    ...precisionOptions(flags),
    ...{ host, port, insecure, maxBatch, ui, logPrompts, logLevel, engine, adapter, imageBackend, parts, defaults },
    maxQueue: queue,
    apiKeys: keysOf(flags),
    mediaDomains: flags.allowMediaDomain,
    corsOrigins: flags.corsOrigin,
    model,
    modelName: name
  }
}

const serveModel = async (argument: string | undefined, flags: ServeFlags, command: Command): Promise<void> => {
  if (argument !== undefined && flags.model !== undefined)
    command.error(`error: two models are given, ${argument} and --model ${flags.model}`, { exitCode: 2 })
  const named = argument ?? flags.model
  const options = await toServerOptions(named, flags)
  const { serve } = await import('../../server/index.js') // loaded here because only this command needs it
  const { checkExposure } = await import('../../server/server-options.js')
  try {
    checkExposure(options) // before a model is downloaded
  } catch (error) {
    command.error(`error: ${(error as Error).message}`, { exitCode: 2 })
  }
  if (flags.insecure && keysOf(flags).length === 0)
    info(`WARNING: --insecure: every machine that reaches ${flags.host} can use this server; no API key is asked for`)
  const model = named === undefined ? undefined : await resolveModelFolder(named, flags)
  const name = options.modelName ?? named?.split(/[\\/]/).filter(Boolean).at(-1)
  const server = await serve({ ...options, model, modelName: name })
  process.stdout.write(`${server.modelName} on ${server.url} (base URL of OpenAI clients: ${server.url}/v1)\n`)
  await new Promise<void>((resolve, reject) => {
    let isClosing = false
    const stop = (): void => {
      if (isClosing) process.exit(1) // asked twice
      isClosing = true
      server.close().then(resolve, reject)
    }
    process.on('SIGTERM', stop)
    process.on('SIGINT', stop)
  })
}

/** `internvl serve`: a server with OpenAI's API. Standard output has one line, the address. */
export const serveCommand = (): Command =>
  withLoadOptions(new Command('serve'))
    .description("serve a model with OpenAI's API: chat with images and videos, streams, tools, JSON schemas, embeddings")
    .argument('[model]', 'checkpoint folder, or org/name on the hub; default: the small demo model of the package')
    .option('--host <address>', 'address to listen on; another than this machine needs --api-key', '127.0.0.1')
    .option('--port <n>', 'port; 0 takes a free one', portNumber, 8000)
    .option('--api-key <key>', 'key that clients must send; may be repeated; also read from INTERNVL_API_KEY', appendValue)
    .option('--insecure', 'listen on another address without a key: every machine that reaches the address can use the server')
    .option('--name <name>', "name of the model in requests; default: the last part of the model's name")
    .option('--max-batch <n>', 'answers that are decoded together; default: 8', positiveInteger)
    .option('--queue <n>', 'requests that may wait; one more is answered with 429; default: 64', positiveInteger)
    .option(
      '--allow-media-domain <host>',
      'host that images and videos may be downloaded from, *.example.org for subdomains; may be repeated; default: none',
      appendValue
    )
    .option('--cors-origin <origin>', 'web page that may call the server, * for all; may be repeated; default: none', appendValue)
    .option('--chat-template <file>', "Jinja template instead of the checkpoint's own, for example one with tools")
    .option('--no-ui', 'serve no page at /')
    .option('--log-prompts', 'write messages and answers to the log, which otherwise has none of them')
    .addOption(
      new Option('--log-level <level>', 'level of the log on standard error, JSON lines')
        .choices(['silent', 'error', 'warn', 'info', 'debug'])
        .default('info')
    )
    .addHelpText(
      'after',
      `
Examples:
  internvl serve OpenGVLab/InternVL3_5-1B-HF --quantize int8
  internvl serve path/to/model --host 0.0.0.0 --api-key "$KEY" --allow-media-domain images.example.org

  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"messages": [{"role": "user", "content": "Hello"}]}'`
    )
    .action(serveModel)
