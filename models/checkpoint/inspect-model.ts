import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import type { StoredDtype } from '../../lib/dtype.js'
import type { Issue, Issues } from '../../lib/error.js'
import type { Module } from '../../lib/module.js'
import { declarations } from '../../lib/params.js'
import type { QuantizationFormat } from '../../lib/quantization/formats.js'
import { sizeOf } from '../../lib/shape.js'
import type { Json } from '../config/config-fields.js'
import type { InternVLConfig } from '../config/model-config.js'
import { familyOf, modelFor, partOfPath } from '../families.js'
import { type StoredFormat, splitFormat } from '../quantization/quantized-keys.js'
import { weightFormats } from '../quantization/weight-formats.js'
import { isBuffer } from './keys.js'
import type { Layout, Planned } from './layout.js'
import { bytesByPath, type MemoryNeed, memoryNeeds, precisionsOf } from './memory-check.js'
import { keyIssues, type OpenCheckpoint, type OpenOptions, openCheckpoint } from './open-checkpoint.js'

/** A module or parameter of a model, with the totals of its subtree. */
export interface InspectedNode {
  readonly name: string
  /** Dotted path, a prefix of checkpoint keys. */
  readonly path: string
  /** Declared shape of a parameter; undefined for a module. */
  readonly shape?: readonly number[]
  /** Stored types and quantization formats; empty where all tensors are missing. */
  readonly dtypes: ReadonlyArray<StoredDtype | StoredFormat>
  readonly parameters: number
  /** Bytes in the files. */
  readonly bytes: number
  readonly children: readonly InspectedNode[]
}

/** Stored tensors that the model does not read, or reads otherwise than the configuration says. */
export interface Unread {
  /** Buffers, which are computed. */
  readonly buffers: readonly string[]
  /** A head that is stored though the configuration ties it: equal to the embeddings, different, or without embeddings. */
  readonly head: 'copy' | 'own' | 'alone' | undefined
}

/** Bytes of the parts of a model in a precision. */
export interface PartNeed {
  readonly name: string
  readonly parts: Readonly<Record<string, number>>
}

/** The model of a checkpoint folder without its weights. A model with `issues` does not load. */
export interface InspectedModel {
  readonly dir: string
  readonly config: InternVLConfig
  readonly json: Json
  readonly layout: Layout
  readonly tree: InspectedNode
  /** Bytes of all tensors in memory in float32. */
  readonly float32Bytes: number
  /** Bytes of the weights in memory in each possible precision, on an engine that computes with quantized weights. */
  readonly needs: readonly MemoryNeed[]
  /** `needs` by part of the model: `vision`, `projector`, `embeddings`, `decoder`, `head`. */
  readonly partNeeds: readonly PartNeed[]
  /** Part of `needs` that is float32 in every precision: experts that are stacked in one tensor. */
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

/** The tree of the leaves under `path`, in the order of the leaves. */
const nodeOf = (leaves: readonly Leaf[], path: string): InspectedNode => {
  const [first] = leaves
  const name = path.slice(path.lastIndexOf('.') + 1)
  if (first && leaves.length === 1 && first.path === path) {
    const { shape, planned } = first
    const [dtypes, bytes] = planned ? [[splitFormat(planned.key).format ?? planned.dtype], storedBytes(planned)] : [[], 0]
    return { name, path, shape, dtypes, parameters: sizeOf(shape), bytes, children: [] }
  }
  const leavesOfChild = new Map<string, Leaf[]>()
  const start = path === '' ? 0 : path.length + 1
  for (const leaf of leaves) {
    const end = leaf.path.indexOf('.', start)
    const child = end < 0 ? leaf.path : leaf.path.slice(0, end)
    const its = leavesOfChild.get(child)
    if (its) its.push(leaf)
    else leavesOfChild.set(child, [leaf])
  }
  const children = [...leavesOfChild].map(([child, its]) => nodeOf(its, child))
  const sum = (value: (node: InspectedNode) => number) => children.reduce((n, child) => n + value(child), 0)
  const dtypes = [...new Set(children.flatMap((child) => child.dtypes))].sort()
  return { name, path, dtypes, parameters: sum((c) => c.parameters), bytes: sum((c) => c.bytes), children }
}

const headOf = ({ plan, stored, config }: OpenCheckpoint): Unread['head'] => {
  const path = `${familyOf(config).parts.head}.weight`
  const has = (tensors: readonly Planned[]) => tensors.some(({ key }) => splitFormat(key).path === path)
  if (!has(stored)) return undefined
  if (!has(plan)) return plan.length < stored.length ? 'copy' : 'alone'
  return config.tieWordEmbeddings ? undefined : 'own'
}

/** A CPU has no products with float16 weights. */
const isKeptOnCpu = (format: QuantizationFormat): boolean => format !== 'f16'

/** Bytes by part in each precision, on an engine that computes with quantized weights. */
const partNeedsOf = (module: Module, plan: readonly Planned[]): readonly PartNeed[] =>
  precisionsOf(plan).map(({ name, options }) => {
    const parts: Record<string, number> = {}
    for (const [path, bytes] of bytesByPath(module, plan, weightFormats(module, plan, options), isKeptOnCpu)) {
      const part = partOfPath(path) ?? 'other'
      parts[part] = (parts[part] ?? 0) + bytes
    }
    return { name, parts }
  })

const describe = (checkpoint: OpenCheckpoint): InspectedModel => {
  const { dir, config, json, layout, files, plan } = checkpoint
  const module = modelFor(config)
  const byKey = new Map(plan.map((tensor) => [splitFormat(tensor.key).path, tensor]))
  const leaves = declarations(module).map(([path, { shape }]): Leaf => ({ path, shape, planned: byKey.get(path) }))
  const tree = nodeOf(leaves, '')
  const buffers = [...files.entries.keys()].filter(isBuffer)
  const unread = { buffers, head: headOf(checkpoint) }
  const stacked = declarations(module).filter(([path, { shape }]) => shape.length === 3 && path.includes('.experts.'))
  const bytes = {
    float32Bytes: 4 * tree.parameters,
    needs: memoryNeeds(module, plan, isKeptOnCpu),
    partNeeds: partNeedsOf(module, plan),
    stackedBytes: stacked.reduce((n, [, { shape }]) => n + 4 * sizeOf(shape), 0)
  }
  return { dir, config, json, layout, tree, ...bytes, unread, issues: keyIssues(module, plan) }
}

/**
 * Inspects a checkpoint folder by its config.json and the headers of its files. Errors: those of `openCheckpoint`; keys that do not
 * fit the model are in `issues` of the result.
 */
export const inspectModel = (dir: string, options: OpenOptions = {}): TE.TaskEither<Issues, InspectedModel> =>
  pipe(
    openCheckpoint(dir, options),
    TE.chainTaskK((checkpoint) => async () => {
      await checkpoint.files.close()
      return describe(checkpoint)
    })
  )
