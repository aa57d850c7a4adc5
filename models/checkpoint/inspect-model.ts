import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { StoredDtype } from '../../lib/dtype.js'
import type { Issue, Issues } from '../../lib/error.js'
import { declarations } from '../../lib/params.js'
import { sizeOf } from '../../lib/shape.js'
import type { Json } from '../config/config-fields.js'
import type { InternVLConfig } from '../config/parse-config.js'
import { internVL } from '../internvl/internvl.js'
import { type StoredForm, splitForm } from '../quantization/quantized-keys.js'
import { isBuffer } from './keys.js'
import type { Layout, Planned } from './layout.js'
import { type Need, needs } from './memory-check.js'
import { keyIssues, type OpenCheckpoint, type OpenOptions, openCheckpoint } from './open-checkpoint.js'

/** A module or parameter of the model, with what it and all below it has. */
export interface InspectedNode {
  readonly name: string
  /** Dotted, as the keys of a checkpoint are. */
  readonly path: string
  /** Of a parameter, as the model declares it. */
  readonly shape?: readonly number[]
  /** Types and packed forms that are stored, none where all is missing. */
  readonly dtypes: ReadonlyArray<StoredDtype | StoredForm>
  readonly parameters: number
  /** In the files. */
  readonly bytes: number
  readonly children: readonly InspectedNode[]
}

/** What stands in the files that the model does not read, or reads otherwise than the configuration says. */
export interface Unread {
  /** Computed, never read. */
  readonly buffers: readonly string[]
  /** A head is stored though the configuration ties it: the same numbers, others, or in the place of the embeddings. */
  readonly head: 'copy' | 'own' | 'alone' | undefined
}

/** A checkpoint folder's model without its weights. With errors it would not load. */
export interface InspectedModel {
  readonly dir: string
  readonly config: InternVLConfig
  readonly json: Json
  readonly layout: Layout
  readonly tree: InspectedNode
  /** Of all tensors when they are loaded, in float32. */
  readonly float32Bytes: number
  /** Bytes of the weights in memory at each precision that they can have, on an engine that keeps them packed. */
  readonly needs: readonly Need[]
  /** Of these, what is float32 at each: experts that are stacked in one tensor. */
  readonly stackedBytes: number
  readonly unread: Unread
  /** Keys that are missing, unexpected or of another shape. */
  readonly issues: readonly Issue[]
}

interface Leaf {
  readonly path: string
  readonly shape: readonly number[]
  readonly planned: Planned | undefined
}

const storedBytes = ({ parts }: Planned): number => parts.reduce((n, { begin, end }) => n + end - begin, 0)

/** Leaves whose paths go on from `path`, as one node with those below it in the order of the leaves. */
const nodeOf = (leaves: readonly Leaf[], path: string): InspectedNode => {
  const [first] = leaves
  const name = path.slice(path.lastIndexOf('.') + 1)
  if (first && leaves.length === 1 && first.path === path) {
    const { shape, planned } = first
    const [dtypes, bytes] = planned ? [[splitForm(planned.key).form ?? planned.dtype], storedBytes(planned)] : [[], 0]
    return { name, path, shape, dtypes, parameters: sizeOf(shape), bytes, children: [] }
  }
  const below = new Map<string, Leaf[]>()
  const start = path === '' ? 0 : path.length + 1
  for (const leaf of leaves) {
    const end = leaf.path.indexOf('.', start)
    const child = end < 0 ? leaf.path : leaf.path.slice(0, end)
    below.set(child, [...(below.get(child) ?? []), leaf])
  }
  const children = [...below].map(([child, its]) => nodeOf(its, child))
  const sum = (of: (node: InspectedNode) => number) => children.reduce((n, child) => n + of(child), 0)
  const dtypes = [...new Set(children.flatMap((child) => child.dtypes))].sort()
  return { name, path, dtypes, parameters: sum((c) => c.parameters), bytes: sum((c) => c.bytes), children }
}

const headOf = ({ plan, stored, config }: OpenCheckpoint): Unread['head'] => {
  const has = (tensors: readonly Planned[]) => tensors.some(({ key }) => splitForm(key).path === 'lm_head.weight')
  if (!has(stored)) return undefined
  if (!has(plan)) return plan.length < stored.length ? 'copy' : 'alone'
  return config.tieWordEmbeddings ? undefined : 'own'
}

const describe = (checkpoint: OpenCheckpoint): InspectedModel => {
  const { dir, config, json, layout, files, plan } = checkpoint
  const module = internVL(config)
  const byKey = new Map(plan.map((tensor) => [splitForm(tensor.key).path, tensor]))
  const leaves = declarations(module).map(([path, { shape }]): Leaf => ({ path, shape, planned: byKey.get(path) }))
  const tree = nodeOf(leaves, '')
  const buffers = [...files.entries.keys()].filter(isBuffer)
  const unread = { buffers, head: headOf(checkpoint) }
  const stacked = declarations(module).filter(([path, { shape }]) => shape.length === 3 && path.includes('.experts.'))
  const bytes = {
    float32Bytes: 4 * tree.parameters,
    needs: needs(module, plan, true),
    stackedBytes: stacked.reduce((n, [, { shape }]) => n + 4 * sizeOf(shape), 0)
  }
  return { dir, config, json, layout, tree, ...bytes, unread, issues: keyIssues(module, plan) }
}

/**
 * What a checkpoint folder holds, from its config.json and the heads of its files. Errors: what keeps it from being opened at
 * all; keys that are not the model's are in the report.
 */
export const inspectModel =
  (dir: string, options: OpenOptions = {}): TaskEither<Issues, InspectedModel> =>
  async () => {
    const checkpoint = await openCheckpoint(dir, options)()
    if (E.isLeft(checkpoint)) return checkpoint
    await checkpoint.right.files.close()
    return E.right(describe(checkpoint.right))
  }
