import { Command } from 'commander'
import type { InspectedModel, InspectedNode } from '../../../models/checkpoint/inspect-model.js'
import { workBytes } from '../../../models/checkpoint/memory-check.js'
import type { Inspection } from '../../checkpoint/inspect.js'
import { folderOf, type HubFlags, say, wholeNumber, withHubOptions } from '../common.js'

interface InspectFlags extends HubFlags {
  readonly depth: number
  readonly json?: true
}

const inBytes = (bytes: number): string => {
  const [unit, size] = bytes >= 1e9 ? ['GB', 1e9] : bytes >= 1e6 ? ['MB', 1e6] : ['kB', 1e3]
  return `${(bytes / (size as number)).toFixed(2)} ${unit}`
}
const grouped = (n: number): string => n.toLocaleString('en-US')

/** What two layers must share to be shown as one. */
const kindOf = ({ shape, dtypes, children }: InspectedNode): string =>
  `${shape ?? ''}/${dtypes}/${children.map((child) => `${child.name}:${kindOf(child)}`)}`

/** Numbered layers that are alike stand together, `0-23`. */
const runs = (children: readonly InspectedNode[]): ReadonlyArray<readonly [name: string, nodes: readonly InspectedNode[]]> => {
  const found: InspectedNode[][] = []
  for (const child of children) {
    const last = found.at(-1)
    const isLike = last && /^\d+$/.test(child.name) && kindOf(last[0]!) === kindOf(child)
    if (isLike) last.push(child)
    else found.push([child])
  }
  return found.map((nodes) => [nodes.length > 1 ? `${nodes[0]!.name}-${nodes.at(-1)!.name}` : nodes[0]!.name, nodes])
}

type Row = readonly [name: string, shape: string, types: string, parameters: string, bytes: string]

const rowsOf = (name: string, nodes: readonly InspectedNode[], level: number, depth: number): readonly Row[] => {
  const [first] = nodes as readonly [InspectedNode]
  const sum = (of: (node: InspectedNode) => number) => nodes.reduce((n, node) => n + of(node), 0)
  const shape = first.shape ? `[${first.shape.join(', ')}]` : nodes.length > 1 ? `${nodes.length} alike` : ''
  const types = first.dtypes.join(' ') || 'missing'
  const [parameters, bytes] = [grouped(sum((n) => n.parameters)), inBytes(sum((n) => n.bytes))]
  const below = level < depth ? runs(first.children).flatMap(([child, its]) => rowsOf(child, its, level + 1, depth)) : []
  return [[`${'  '.repeat(level - 1)}${name}`, shape, types, parameters, bytes], ...below]
}

const table = (rows: readonly Row[]): string => {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)))
  const cell = (text: string, i: number) => (i < 3 ? text.padEnd(widths[i]!) : text.padStart(widths[i]!))
  return rows.map((row) => row.map(cell).join('  ').trimEnd()).join('\n')
}

/** What the weights need in memory, in each way that they can be loaded; no engine is asked for it. */
const memory = ({ needs, stackedBytes, config }: InspectedModel): readonly string[] => [
  `in memory   ${needs.map(({ name, bytes }) => `${name} ${inBytes(bytes)}`).join(', ')} (on a CPU's native engine; others unpack them all), and about ${inBytes(workBytes)} to work in`,
  ...(stackedBytes > 0
    ? [`            of which ${inBytes(stackedBytes)} always: experts of ${config.textConfig.modelType} stay in float32`]
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

/** An inspection for a person. Layers under one another that are alike, and modules below `depth`, are one row. */
export const renderInspection = ({ model, oddities, loads }: Inspection, depth: number): string => {
  const odd = oddities.map(({ message }) => `odd         ${message}`)
  if (!model) return odd.join('\n')
  const header: Row = ['module', 'shape', 'type', 'parameters', 'on disk']
  const rows = runs(model.tree.children).flatMap(([name, nodes]) => rowsOf(name, nodes, 1, depth))
  return [table([header, ...rows]), '', summary(model), ...odd, `loads       ${loads ? 'yes' : 'no'}`].join('\n')
}

const pruned = ({ children, ...node }: InspectedNode, depth: number): InspectedNode => ({
  ...node,
  children: depth > 0 ? children.map((child) => pruned(child, depth - 1)) : []
})

/** The same as plain data. */
const toJson = ({ dir, loads, model, oddities, issues }: Inspection, depth: number) => ({
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
  oddities,
  issues
})

/** `internvl inspect`: exit code 1 when the folder would not load. */
export const inspectCommand = (): Command =>
  withHubOptions(new Command('inspect'))
    .description('show the modules of a checkpoint folder, and what is odd about it, without loading the weights')
    .argument('<model>', 'a checkpoint folder, or org/name of the hub, which is downloaded first')
    .option('--depth <n>', 'levels of modules that are shown', wholeNumber, 3)
    .option('--json', 'all of it as JSON')
    .addHelpText('after', '\nExample:\n  internvl inspect InternVL3-1B-hf --depth 4')
    .action(async (model: string, { depth, json, ...hub }: InspectFlags) => {
      const folder = await folderOf(model, hub)
      const { inspect } = await import('../../checkpoint/inspect.js') // TensorFlow.js takes a while to load
      const found = await inspect(folder)
      const text = json ? JSON.stringify(toJson(found, depth), null, 2) : renderInspection(found, depth)
      if (text) console.log(text)
      for (const { message } of found.issues) say(`internvl: ${message}`)
      if (!found.loads) process.exitCode = 1
    })
