import { Command } from 'commander'
import type { InspectedModel, InspectedNode } from '../../../models/checkpoint/inspect-model.js'
import { workingBytes } from '../../../models/checkpoint/memory-check.js'
import type { Inspection } from '../../checkpoint/inspect.js'
import { type HubFlags, info, positiveInteger, resolveModelFolder, withHubOptions } from '../common.js'

interface InspectFlags extends HubFlags {
  readonly depth: number
  readonly json?: true
}

const inBytes = (bytes: number): string => {
  const [unit, size] = bytes >= 1e9 ? ['GB', 1e9] : bytes >= 1e6 ? ['MB', 1e6] : ['kB', 1e3]
  return `${(bytes / (size as number)).toFixed(2)} ${unit}`
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
export const renderInspection = ({ model, diagnostics, loads }: Inspection, depth: number): string => {
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

/** `internvl inspect`: exit code 1 if the folder cannot be loaded. */
export const inspectCommand = (): Command =>
  withHubOptions(new Command('inspect'))
    .description('show the modules of a checkpoint folder and warnings about its files, without loading the weights')
    .argument('<model>', 'checkpoint folder, or org/name on the hub, which is downloaded first')
    .option('--depth <n>', 'number of module levels to show', positiveInteger, 3)
    .option('--json', 'print the inspection as JSON')
    .addHelpText('after', '\nExample:\n  internvl inspect InternVL3-1B-hf --depth 4')
    .action(async (model: string, { depth, json, ...hub }: InspectFlags) => {
      const folder = await resolveModelFolder(model, hub)
      const { inspect } = await import('../../checkpoint/inspect.js') // loaded here because TensorFlow.js loads slowly
      const found = await inspect(folder)
      const text = json ? JSON.stringify(toJson(found, depth), null, 2) : renderInspection(found, depth)
      if (text) console.log(text)
      for (const { message } of found.issues) info(`internvl: ${message}`)
      if (!found.loads) process.exitCode = 1
    })
