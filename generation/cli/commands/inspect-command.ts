import { Command, Option } from 'commander'
import type { EngineName } from '../../../lib/engines/index.js'
import type { InspectedModel, InspectedNode } from '../../../models/checkpoint/inspect-model.js'
import { workingBytes } from '../../../models/checkpoint/memory-check.js'
import type { Inspection } from '../../checkpoint/inspect.js'
import type { Plan } from '../../plan/plan.js'
import {
  appendValue,
  type HubFlags,
  info,
  positiveInteger,
  resolveModelFolder,
  withEngineOption,
  withHubOptions
} from '../common.js'
import { inBytes, renderPlan } from '../plan-table.js'

interface InspectFlags extends HubFlags {
  readonly depth: number
  readonly json?: true
  readonly image?: readonly string[]
  readonly video?: readonly string[]
  readonly prompt?: string
  readonly maxPatches?: number
  readonly numFrames?: number
  readonly maxNewTokens?: number
  readonly batchSize?: number
  readonly train?: 'all' | 'lora'
  readonly rank: number
  readonly packing?: number
  readonly gradientCheckpointing?: true
  readonly speed: boolean
  readonly engine?: EngineName
}

const grouped = (n: number): string => n.toLocaleString('en-US')

/** A key that is equal for layers of equal structure. */
const structureOf = ({ shape, dtypes, children }: InspectedNode): string =>
  `${shape ?? ''}/${dtypes}/${children.map((child) => `${child.name}:${structureOf(child)}`)}`

/** Groups consecutive layers of equal structure: `0-23`. */
const groupLayers = (
  children: readonly InspectedNode[]
): ReadonlyArray<readonly [name: string, nodes: readonly InspectedNode[]]> => {
  const found: InspectedNode[][] = []
  for (const child of children) {
    const last = found.at(-1)
    const isEqual = last && /^\d+$/.test(child.name) && structureOf(last[0]!) === structureOf(child)
    if (isEqual) last.push(child)
    else found.push([child])
  }
  return found.map((nodes) => [nodes.length > 1 ? `${nodes[0]!.name}-${nodes.at(-1)!.name}` : nodes[0]!.name, nodes])
}

type Row = readonly [name: string, shape: string, types: string, parameters: string, bytes: string]

const rowsOf = (name: string, nodes: readonly InspectedNode[], level: number, depth: number): readonly Row[] => {
  const [first] = nodes as readonly [InspectedNode]
  const sum = (of: (node: InspectedNode) => number) => nodes.reduce((n, node) => n + of(node), 0)
  const shape = first.shape ? `[${first.shape.join(', ')}]` : nodes.length > 1 ? `${nodes.length} equal` : ''
  const types = first.dtypes.join(' ') || 'missing'
  const [parameters, bytes] = [grouped(sum((n) => n.parameters)), inBytes(sum((n) => n.bytes))]
  const below = level < depth ? groupLayers(first.children).flatMap(([child, its]) => rowsOf(child, its, level + 1, depth)) : []
  return [[`${'  '.repeat(level - 1)}${name}`, shape, types, parameters, bytes], ...below]
}

const table = (rows: readonly Row[]): string => {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)))
  const cell = (text: string, i: number) => (i < 3 ? text.padEnd(widths[i]!) : text.padStart(widths[i]!))
  return rows.map((row) => row.map(cell).join('  ').trimEnd()).join('\n')
}

/** Memory of the weights for each way to load them; computed without an engine. */
const memory = ({ needs, stackedBytes, config }: InspectedModel): readonly string[] => [
  `in memory   ${needs.map(({ name, bytes }) => `${name} ${inBytes(bytes)}`).join(', ')} (on a CPU's native engine; others unpack them all), and about ${inBytes(workingBytes)} to work in`,
  ...(stackedBytes > 0
    ? [`            of which ${inBytes(stackedBytes)} always: the experts of ${config.textConfig.modelType} stay in float32`]
    : [])
]

const summary = (model: InspectedModel): string => {
  const { config, layout, tree } = model
  return [
    `decoder     ${config.textConfig.modelType}, ${config.textConfig.numHiddenLayers} layers`,
    `layout      ${layout}`,
    `parameters  ${grouped(tree.parameters)}`,
    `on disk     ${inBytes(tree.bytes)} (${tree.dtypes.join(', ')})`,
    ...memory(model)
  ].join('\n')
}

/** Renders an inspection as a table. Consecutive layers of equal structure, and modules below `depth`, share one row. */
const renderInspection = ({ model, diagnostics, loads }: Inspection, depth: number): string => {
  const warnings = diagnostics.map(({ message }) => `warning     ${message}`)
  if (!model) return warnings.join('\n')
  const header: Row = ['module', 'shape', 'type', 'parameters', 'on disk']
  const rows = groupLayers(model.tree.children).flatMap(([name, nodes]) => rowsOf(name, nodes, 1, depth))
  return [table([header, ...rows]), '', summary(model), ...warnings, `loads       ${loads ? 'yes' : 'no'}`].join('\n')
}

const pruned = ({ children, ...node }: InspectedNode, depth: number): InspectedNode => ({
  ...node,
  children: depth > 0 ? children.map((child) => pruned(child, depth - 1)) : []
})

/** The inspection as JSON. */
const toJson = ({ dir, loads, model, diagnostics, issues }: Inspection, depth: number) => ({
  dir,
  loads,
  ...(model
    ? {
        decoder: model.config.textConfig.modelType,
        layout: model.layout,
        parameters: model.tree.parameters,
        bytes: {
          disk: model.tree.bytes,
          float32: model.float32Bytes,
          memory: Object.fromEntries(model.needs.map(({ name, bytes }) => [name, bytes]))
        },
        dtypes: model.tree.dtypes,
        tree: pruned(model.tree, depth)
      }
    : {}),
  diagnostics,
  issues
})

/** The plan of a request, where a flag describes one; the speed is measured on the selected engine unless `--no-speed` is given. */
const planOf = async (folder: string, flags: InspectFlags): Promise<Plan | undefined> => {
  const { image, video, prompt, maxPatches, numFrames, maxNewTokens, batchSize, packing, gradientCheckpointing } = flags
  const given = [image, video, prompt, maxPatches, maxNewTokens, batchSize, flags.train]
  if (given.every((flag) => flag === undefined)) return undefined
  const { plan } = await import('../../plan/plan.js')
  const measured = async () => {
    const { selectEngine } = await import('../../../lib/engines/index.js')
    const { measureSpeed } = await import('../../plan/machine-speed.js')
    await selectEngine(flags.engine === undefined ? {} : { engine: flags.engine })
    return { speed: measureSpeed() }
  }
  const train = {
    ...(batchSize === undefined ? {} : { batchSize }),
    ...(flags.train === 'lora' ? { loraRank: flags.rank } : {}),
    ...(packing === undefined ? {} : { packing }),
    ...(gradientCheckpointing ? { gradientCheckpointing } : {})
  }
  return plan(folder, {
    ...(image ? { images: image } : {}),
    ...(video ? { videos: video } : {}),
    ...(prompt === undefined ? {} : { prompt }),
    ...(maxPatches === undefined ? {} : { maxPatches }),
    ...(numFrames === undefined ? {} : { numFrames }),
    ...(maxNewTokens === undefined ? {} : { maxNewTokens }),
    ...(batchSize === undefined ? {} : { batchSize }),
    ...(flags.train ? { train } : {}),
    ...(flags.speed ? await measured() : {})
  })
}

const examples = `
Examples:
  internvl inspect InternVL3-1B-hf --depth 4
  internvl inspect InternVL3-1B-hf --image photo.jpg --max-patches 12
  internvl inspect InternVL3-1B-hf --video clip.mp4 --num-frames 32 --batch-size 2
  internvl inspect InternVL3-1B-hf --image photo.jpg --train lora --rank 16 --batch-size 4 --packing 8192`

/** `internvl inspect`: exit code 1 if the folder cannot be loaded. */
export const inspectCommand = (): Command =>
  withEngineOption(withHubOptions(new Command('inspect')))
    .description(
      'show the modules of a checkpoint folder without loading the weights; plan a request or a training before it runs'
    )
    .argument('<model>', 'checkpoint folder, or org/name on the hub, which is downloaded first')
    .option('--depth <n>', 'number of module levels to show', positiveInteger, 3)
    .option('--image <file>', 'plan a request with this image; repeatable', appendValue)
    .option('--video <file>', 'plan a request with this video; repeatable', appendValue)
    .option('--prompt <text>', 'text of the planned request')
    .option('--max-patches <n>', "maximum number of tiles of an image; default: the checkpoint's own", positiveInteger)
    .option('--num-frames <n>', 'number of frames to sample from a video', positiveInteger)
    .option('--max-new-tokens <n>', 'number of tokens to generate; default: 100', positiveInteger)
    .option('--batch-size <n>', 'rows that run together; default: 1', positiveInteger)
    .addOption(new Option('--train <weights>', 'plan a training of all weights or of LoRA').choices(['all', 'lora']))
    .option('--rank <n>', 'rank of LoRA', positiveInteger, 16)
    .option('--packing <tokens>', 'tokens of a packed row of the training', positiveInteger)
    .option('--gradient-checkpointing', 'recompute activations in the backward pass')
    .option('--no-speed', 'do not measure the speed of the machine; the plan then has no times')
    .option('--json', 'print the inspection as JSON')
    .addHelpText('after', examples)
    .action(async (model: string, flags: InspectFlags) => {
      const { depth, json } = flags
      const folder = await resolveModelFolder(model, flags)
      const { inspect } = await import('../../checkpoint/inspect.js') // loaded here because TensorFlow.js loads slowly
      const found = await inspect(folder)
      const plan = found.loads ? await planOf(folder, flags) : undefined
      if (json) console.log(JSON.stringify({ ...toJson(found, depth), ...(plan ? { plan } : {}) }, null, 2))
      else if (plan) console.log(renderPlan(plan))
      else {
        const text = renderInspection(found, depth)
        if (text) console.log(text)
      }
      for (const { message } of found.issues) info(`internvl: ${message}`)
      if (!found.loads) process.exitCode = 1
    })
