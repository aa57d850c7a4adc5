import { type Issue, issue } from '../../lib/error.js'
import type { TensorEntry, TensorFiles } from '../../lib/safetensors/read.js'
import { rearranged, rowRanges, type StoredMatrix, storedMatrix, transposed } from '../../lib/safetensors/stored-matrix.js'
import { tf } from '../../lib/tf.js'
import type { Heads } from '../checkpoint/layout.js'
import type { LowRankUpdate } from '../checkpoint/weight-changes.js'
import { families } from '../families.js'
import { type AdapterConfig, alphaOf, endsWithName, rankOf, targetedModules } from './adapter-config.js'
import { type AdapterKey, type LoraPart, loraKeyOf, parseAdapterKey } from './adapter-keys.js'
import { isNamed, savedModuleMismatches } from './adapter-modules.js'
import { type NamedTensor, type Names, namesFor } from './adapter-names.js'
import { isEmbedding, type Shapes } from './lora-targets.js'

const { head } = families[0].parts

/** The update of a weight of the module tree. */
export interface AdapterUpdate extends LowRankUpdate {
  /** Number of stacked experts; 1 for a matrix. */
  readonly experts: number
}

/** The contents of an adapter for the module tree: updates by module, and new values of parameters by path. */
export interface AdapterContents {
  readonly updates: ReadonlyMap<string, AdapterUpdate>
  readonly parameters: ReadonlyMap<string, StoredMatrix>
}

type Parts = Readonly<Partial<Record<LoraPart, TensorEntry>>>

/** The tensors of a file: LoRA parts by module and depth, parameters by path, and unknown keys. */
interface Grouped {
  readonly loras: ReadonlyMap<string, { readonly module: string; readonly depth: number; readonly parts: Parts }>
  readonly parameters: ReadonlyMap<string, { readonly entry: TensorEntry; readonly isBase: boolean }>
  readonly unknown: readonly string[]
}

const groupTensors = (entries: Iterable<TensorEntry>): Grouped => {
  const loras = new Map<string, { module: string; depth: number; parts: Parts }>()
  const parameters = new Map<string, { entry: TensorEntry; isBase: boolean }>()
  const unknown: string[] = []
  for (const entry of entries) {
    const key: AdapterKey | undefined = parseAdapterKey(entry.key)
    if (!key) unknown.push(entry.key)
    else if ('parameter' in key) parameters.set(key.parameter, { entry, isBase: key.isBase })
    else {
      const id = `${key.module} ${key.depth}`
      loras.set(id, { module: key.module, depth: key.depth, parts: { ...loras.get(id)?.parts, [key.part]: entry } })
    }
  }
  return { loras, parameters, unknown }
}

/** A LoRA of a file, and the weight that it belongs to: a module's, or the stacked experts of a layer. */
interface Located {
  /** Path for messages, ranks and alphas: of the module, or of the parameter of stacked experts. */
  readonly path: string
  readonly parts: Parts
  readonly expected: Readonly<Partial<Record<LoraPart, readonly number[]>>>
  readonly updatesOf: (files: TensorFiles, scaling: number) => readonly (readonly [module: string, update: AdapterUpdate])[]
}

const moduleOf = (path: string): string => path.replace(/\.weight$/, '')

const hasModule = (names: Names, module: string): boolean =>
  [`${module}.weight`, `${module}.gate_up_proj`, `${module}.0.gate_proj.weight`].some((name) => names.has(name))

/** LoRA of a linear layer, which a layout may fuse from several: every layer has A and the rows of B that are its own. */
const linearLora = (module: string, parts: Parts, { shape, parts: tree }: NamedTensor, rank: number, dora: boolean): Located => ({
  path: module,
  parts,
  expected: {
    lora_A: [rank, shape[1]!],
    lora_B: [shape[0]!, rank],
    ...(dora ? { lora_magnitude_vector: [shape[0]!] } : {})
  },
  updatesOf: (files, scaling) =>
    tree.map(({ path, ranges }) => {
      const [A, B] = [storedMatrix(files, parts.lora_A!), rowRanges(storedMatrix(files, parts.lora_B!), ranges)]
      const { lora_magnitude_vector: vector } = parts
      const magnitude = vector && rowRanges(storedMatrix(files, { ...vector, shape: [shape[0]!] }), ranges)
      return [moduleOf(path), { A, B, magnitude, scaling, experts: 1 }]
    })
})

/** LoRA of embeddings `[V, D]`, whose matrices PEFT stores transposed: A `[rank, V]`, B `[D, rank]`. */
const embeddingLora = (module: string, parts: Parts, { shape, parts: tree }: NamedTensor, rank: number): Located => ({
  path: module,
  parts,
  expected: { lora_embedding_A: [rank, shape[0]!], lora_embedding_B: [shape[1]!, rank] },
  updatesOf: (files, scaling) => {
    const [B, A] = [parts.lora_embedding_A!, parts.lora_embedding_B!].map((entry) => transposed(storedMatrix(files, entry)))
    return tree.map(({ path }) => [moduleOf(path), { A: A!, B: B!, scaling, experts: 1 }])
  }
})

/**
 * LoRA of stacked experts: A `[E · rank, in]`, expert by expert, and B `[out, rank · E]`, whose columns alternate between experts. The tree
 * has stacked weights `[E, in, out]` (GPT-OSS), or a linear layer for each expert (Qwen3-MoE, gate before up).
 * Source: PEFT's `ParamWrapper`.
 */
const expertsLora = (module: string, name: string, parts: Parts, names: Names, rank: number): Located => {
  const stacked = names.get(`${module}.${name}`)
  const layers = name === 'gate_up_proj' ? ['gate_proj', 'up_proj'] : ['down_proj']
  const first = names.get(`${module}.0.${layers[0]}.weight`)
  const E = stacked ? stacked.shape[0]! : [...names.keys()].filter((key) => key.startsWith(`${module}.`) && key.endsWith(`.${layers[0]}.weight`)).length // biome-ignore format: one line
  const [inner, out] = stacked
    ? (stacked.shape.slice(1) as [number, number])
    : [first!.shape[1]!, layers.length * first!.shape[0]!]
  const ofExpert = (B: StoredMatrix, e: number, from: number, rows: number) =>
    rearranged(B, [rows, rank], (o, k) => (from + o) * rank * E + k * E + e)
  return {
    path: `${module}.${name}`,
    parts,
    expected: { lora_A: [E * rank, inner], lora_B: [out, rank * E] },
    updatesOf: (files, scaling) => {
      const [A, B] = [storedMatrix(files, parts.lora_A!), storedMatrix(files, parts.lora_B!)]
      if (stacked) {
        const atInput = rearranged(A, [E * inner, rank], (row, k) => (Math.floor(row / inner) * rank + k) * inner + (row % inner))
        const atOutput = rearranged(B, [E * rank, out], (row, o) => o * rank * E + (row % rank) * E + Math.floor(row / rank))
        return stacked.parts.map(({ path }) => [path, { A: atOutput, B: atInput, scaling, experts: E }])
      }
      const all = rearranged(B, [out, rank * E], (o, k) => o * rank * E + k) // read once for all experts
      return Array.from({ length: E }, (_, e) =>
        layers.map((layer, i) => {
          const rows = out / layers.length
          const path = names.get(`${module}.${e}.${layer}.weight`)!.parts[0]!.path
          const update = {
            A: rowRanges(A, [[e * rank, (e + 1) * rank]]),
            B: ofExpert(all, e, i * rows, rows),
            scaling,
            experts: 1
          }
          return [moduleOf(path), update] as const
        })
      ).flat()
    }
  }
}

/** The stacked parameters of experts that an adapter has LoRA for, the innermost wrapper first. */
const expertNames = ({ parameters }: AdapterConfig, module: string): readonly string[] =>
  ['gate_up_proj', 'down_proj'].filter((name) => endsWithName(parameters, `${module}.${name}`))

/** The LoRA of a file with its place in the model; an issue for a module that the model does not have. */
const locate = (file: string, c: AdapterConfig, { loras }: Grouped, names: Names): readonly (Located | Issue)[] =>
  [...loras.values()].map(({ module, depth, parts }) => {
    const linear = names.get(`${module}.weight`)
    if (linear?.shape.length === 2 && depth === 0) {
      const rank = rankOf(c, module)
      if (isEmbedding(module) || 'lora_embedding_A' in parts) return embeddingLora(module, parts, linear, rank)
      return linearLora(module, parts, linear, rank, c.dora)
    }
    const name = expertNames(c, module).at(-1 - depth)
    if (name && hasModule(names, module)) return expertsLora(module, name, parts, names, rankOf(c, `${module}.${name}`))
    return issue('UnexpectedKey', `${file}: this model has no linear layer ${module}`, { file, key: module })
  })

const isLocated = (found: Located | Issue): found is Located => 'updatesOf' in found

/** An error for every part of a LoRA that is missing, unexpected or of another shape. */
const partIssues = (file: string, { path, parts, expected }: Located): readonly Issue[] => [
  ...(Object.entries(expected) as [LoraPart, readonly number[]][]).flatMap(([part, shape]) => {
    const [key, actual] = [loraKeyOf(path, part), parts[part]?.shape]
    if (!actual) return [issue('MissingKey', `${file}: ${key} is missing`, { file, key })]
    return tf.util.arraysEqual([...actual], [...shape])
      ? []
      : [issue('ShapeMismatch', `${file}: ${key}: expected shape [${shape}], got [${actual}]`, { file, key })]
  }),
  ...(Object.keys(parts) as LoraPart[]).flatMap((part) => {
    if (part in expected) return []
    const key = loraKeyOf(path, part)
    const why =
      part === 'lora_magnitude_vector' && isEmbedding(path)
        ? 'DoRA of embeddings is not supported'
        : 'the module should have no such part'
    return [issue('UnexpectedKey', `${file}: ${key}: ${why}`, { file, key })]
  })
]

/** The linear layers and embeddings that the configuration targets and that have no LoRA. Experts may be stacked, and are left out. */
const untargeted = (file: string, c: AdapterConfig, names: Names, located: readonly Located[]): readonly Issue[] => {
  const present = new Set(located.map(({ path }) => path))
  const modules = [...names].flatMap(([name, { shape }]) =>
    /\.weight$/.test(name) && shape.length === 2 ? [moduleOf(name)] : []
  )
  return targetedModules(c, modules)
    .filter((module) => !present.has(module) && !/\.experts\.\d+\.|\.mlp\.(gate|router)$/.test(module))
    .map((key) => {
      const part = isEmbedding(key) ? 'lora_embedding_A' : 'lora_A'
      const message = `${file}: ${loraKeyOf(key, part)} is missing, though adapter_config.json targets the layer`
      return issue('MissingKey', message, { file, key })
    })
}

/** Parameters of an adapter: of saved modules, trained biases, and the embeddings below a LoRA. */
const kindOfParameter = (c: AdapterConfig, path: string, isBase: boolean): 'saved' | 'bias' | 'base' | undefined => {
  if (isBase && path.endsWith('.weight')) return 'base'
  if (c.bias !== 'none' && path.endsWith('bias') && !isNamed(c.modulesToSave, path)) return 'bias'
  return c.modulesToSave.length > 0 ? 'saved' : undefined
}

/** Whether embeddings and head of a tied model differ with an adapter, so that the model needs a head of its own. */
export const untiesHead = (c: AdapterConfig, keys: Iterable<string>): boolean =>
  !c.tied &&
  [...keys].some((key) => {
    const parsed = parseAdapterKey(key)
    if (!parsed) return false
    if ('parameter' in parsed) return !parsed.isBase && isTiedModule(moduleOf(parsed.parameter))
    return isTiedModule(parsed.module)
  })

const headNames = [head, 'language_model.lm_head', 'language_model.output', 'output']
const isTiedModule = (module: string): boolean =>
  isEmbedding(module) || /(^|\.)tok_embeddings$/.test(module) || headNames.includes(module)

/** Checks an adapter's tensors against a model; returns its contents, or every mismatch. */
export const adapterContents = (
  file: string,
  c: AdapterConfig,
  files: TensorFiles,
  shapes: Shapes,
  heads?: Heads
): { readonly issues: readonly Issue[]; readonly contents: () => AdapterContents } => {
  const all = groupTensors(files.entries.values())
  const isTied = !shapes.has(`${head}.weight`)
  // an adapter that keeps the tie has embeddings and head, which are equal
  const grouped = isTied ? withoutHead(all) : all
  const items = [
    ...[...grouped.loras.values()].map(({ module }) => ({ module })),
    ...[...grouped.parameters.keys()].map((path) => ({ path }))
  ]
  const names = namesFor(
    items,
    (known, item) => ('module' in item ? hasModule(known, item.module) : known.has(item.path)),
    shapes,
    heads
  )
  const located = locate(file, c, grouped, names)
  const found = located.filter(isLocated)
  const kinds = new Map(
    [...grouped.parameters].map(([path, { entry, isBase }]) => [path, { entry, kind: kindOfParameter(c, path, isBase) }])
  )
  const ofKind = (kind: string | undefined) => [...kinds].filter(([, one]) => one.kind === kind)
  const namedShapes = new Map([...names].map(([name, { shape }]) => [name, shape]))
  const unknown = [...grouped.unknown, ...ofKind(undefined).map(([, { entry }]) => entry.key)]
  const issues = [
    ...unknown.map((key) => issue('UnexpectedKey', `${file}: ${key} is not a LoRA weight of a linear layer`, { file, key })),
    ...located.flatMap((one) => (isLocated(one) ? partIssues(file, one) : [one])),
    ...untargeted(file, c, names, found),
    ...[...ofKind('bias'), ...ofKind('base')].flatMap(([path, { entry }]) => {
      const expected = namedShapes.get(path)
      if (!expected) return [issue('UnexpectedKey', `${file}: this model has no parameter ${path}`, { file, key: entry.key })]
      return tf.util.arraysEqual([...entry.shape], [...expected])
        ? []
        : [
            issue('ShapeMismatch', `${file}: ${entry.key}: expected shape [${expected}], got [${entry.shape}]`, {
              file,
              key: entry.key
            })
          ]
    }),
    ...savedModuleMismatches(
      file,
      c.modulesToSave,
      namedShapes,
      new Map(ofKind('saved').map(([path, { entry }]) => [path, entry])),
      isTied
    )
  ]
  const contents = (): AdapterContents => ({
    updates: new Map(found.flatMap((one) => one.updatesOf(files, scalingOf(c, one.path)))),
    parameters: new Map(
      [...kinds].flatMap(([path, { entry }]) =>
        names
          .get(path)!
          .parts.map((part) => [part.path, rowRanges(storedMatrix(files, entry), scaledRanges(part.ranges, entry))] as const)
      )
    )
  })
  return { issues, contents }
}

/** Ranges of the first axis as ranges of the rows of the last axis. */
const scaledRanges = (ranges: NamedTensor['parts'][number]['ranges'], { shape }: TensorEntry) => {
  const rows = shape.slice(1, -1).reduce((n, side) => n * side, 1)
  return ranges.map(([from, to]) => [from * rows, to * rows] as const)
}

const withoutHead = ({ loras, parameters, unknown }: Grouped): Grouped => ({
  loras: new Map([...loras].filter(([, { module }]) => !headNames.includes(module))),
  parameters: new Map([...parameters].filter(([path]) => !headNames.includes(moduleOf(path)))),
  unknown
})

/** The factor of a module's update: α/r, or α/√r with `rslora`. */
const scalingOf = (config: AdapterConfig, module: string): number => {
  const rank = rankOf(config, module)
  return alphaOf(config, module) / (config.rslora ? Math.sqrt(rank) : rank)
}
