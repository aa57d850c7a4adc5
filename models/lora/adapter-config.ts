import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { errorText, type Issues, invalid, issue, valueText, whenValid } from '../../lib/error.js'
import type { LoraWeight } from '../../lib/nn/linear.js'
import { isJson, type Json } from '../config/config-fields.js'
import { escapedPath, isRegExp, matchesModule, pythonSyntax } from './module-pattern.js'

/** Names of PEFT's files. */
export const adapterConfigFile = 'adapter_config.json'
export const adapterWeightsFile = 'adapter_model.safetensors'

/** The fields of PEFT's `LoraConfig` that determine the computation. */
export interface AdapterConfig {
  /** Folder or name of the base model. */
  readonly base: string | undefined
  readonly rank: number
  readonly alpha: number
  readonly dropout: number
  /** Whether the scaling is α/√r instead of α/r. */
  readonly rslora: boolean
  /** Names at the end of module paths, or a regular expression that matches whole paths. */
  readonly targets: readonly string[] | string
  /** Modules that the targets leave out: names at the end of paths, or a regular expression. */
  readonly excluded: readonly string[] | string
  /** Indices of the layers with LoRA; undefined for all. */
  readonly layers: readonly number[] | undefined
  /** Names of the lists that `layers` counts, such as `layers`, or regular expressions of them; empty for the first list of a path. */
  readonly layersPattern: readonly string[]
  /** Parameters with LoRA that are in no linear layer, by the end of their paths: the stacked experts of a layer. */
  readonly parameters: readonly string[]
  /** The biases that were trained too. */
  readonly bias: 'none' | 'all' | 'lora_only'
  /** Whether magnitudes were trained beside directions. Source: Liu et al. 2024, DoRA. */
  readonly dora: boolean
  /** Whether tied embeddings stay tied: the adapter changes embeddings and head together. */
  readonly tied: boolean
  /** Names at the end of the paths of modules that were trained in full. */
  readonly modulesToSave: readonly string[]
  /** Ranks and alphas of single modules, by a regular expression for the end of the path. */
  readonly rankPattern: Readonly<Record<string, number>>
  readonly alphaPattern: Readonly<Record<string, number>>
}

/** The value of the pattern that matches a module, else the default. Source: PEFT's `get_pattern_key`. */
const valueFor = (patterns: Readonly<Record<string, number>>, module: string, fallback: number): number => {
  const key = Object.keys(patterns).find((pattern) => matchesModule(`^(?:.*\\.)?(?:${pattern})$`, module))
  return key === undefined ? fallback : patterns[key]!
}

export const rankOf = ({ rank, rankPattern }: AdapterConfig, module: string): number => valueFor(rankPattern, module, rank)
export const alphaOf = ({ alpha, alphaPattern }: AdapterConfig, module: string): number => valueFor(alphaPattern, module, alpha)

/** Whether a module path ends with one of the names. */
export const endsWithName = (names: readonly string[], module: string): boolean =>
  names.some((name) => module === name || module.endsWith(`.${name}`))

/** PEFT's word for every linear layer but the head. */
export const allLinear = 'all-linear'

const isAllLinear = (targets: readonly string[] | string): boolean =>
  typeof targets === 'string' && targets.toLowerCase() === allLinear

const matchesTargets = (targets: readonly string[] | string, module: string): boolean =>
  typeof targets === 'string' ? matchesModule(`^(?:${targets})$`, module) : endsWithName(targets, module)

/**
 * Index of the layer that a module is in: the first number in the path, or the first after a list that a pattern names. The patterns are
 * tried in order.
 */
const layerOf = (module: string, patterns: readonly string[]): number | undefined => {
  const names = module.split('.')
  const numbers = names.flatMap((name, i) => (/^\d+$/.test(name) && i < names.length - 1 ? [i] : []))
  const after = (pattern: string) =>
    numbers.find((i) => i > 0 && matchesModule(`^(?:.*\\.)?(?:${pattern})$`, names.slice(0, i).join('.')))
  const at = patterns.length === 0 ? numbers.find((i) => i > 1) : patterns.map(after).find((i) => i !== undefined)
  return at === undefined ? undefined : Number(names[at])
}

/** The modules that the targets match. Source: PEFT's `check_target_module_exists`. */
export const targetedModules = (c: AdapterConfig, modules: readonly string[]): readonly string[] => {
  const { targets, excluded, layers, layersPattern, modulesToSave } = c
  if (isAllLinear(targets)) return [] // PEFT saves the names that it found
  return modules.filter(
    (module) =>
      matchesTargets(targets, module) &&
      !(excluded.length > 0 && matchesTargets(excluded, module)) &&
      !module.split('.').some((_, i, names) => endsWithName(modulesToSave, names.slice(0, i + 1).join('.'))) &&
      // layers select among names only: a whole path counts in any layer
      (layers === undefined || typeof targets === 'string' || targets.includes(module) || layers.includes(layerOf(module, layersPattern) ?? -1)) // biome-ignore format: one line
  )
}

/** The most frequent value, and the other values by path. */
const mostFrequent = (numbers: ReadonlyMap<string, number>): readonly [number, Readonly<Record<string, number>>] => {
  const counts = new Map<number, number>()
  for (const n of numbers.values()) counts.set(n, (counts.get(n) ?? 0) + 1)
  const most = [...counts].reduce((a, b) => (b[1] > a[1] ? b : a))[0]
  return [most, Object.fromEntries([...numbers].flatMap(([path, n]) => (n === most ? [] : [[escapedPath(path), n]])))]
}

/** The last names of the paths where they select exactly these modules, else the whole paths. */
const targetNames = (chosen: readonly string[], modules: readonly string[]): readonly string[] => {
  const names = [...new Set(chosen.map((path) => path.split('.').at(-1)!))]
  return modules.filter((path) => names.includes(path.split('.').at(-1)!)).length === chosen.length ? names : chosen
}

/** The last two names of stacked experts' paths where they select exactly these, else the whole paths. */
const parameterNames = (chosen: readonly string[], all: readonly string[]): readonly string[] => {
  const nameOf = (path: string) => path.split('.').slice(-2).join('.')
  const names = [...new Set(chosen.map(nameOf))]
  return all.filter((path) => names.includes(nameOf(path))).length === chosen.length ? names : chosen
}

/** An adapter as `adapterConfigJson` describes it. */
export interface AdapterDescription {
  /** LoRA weights by module. */
  readonly weights: ReadonlyMap<string, LoraWeight>
  /** Every module that could have LoRA. */
  readonly modules: readonly string[]
  readonly base: string | undefined
  readonly modulesToSave: readonly string[]
  readonly bias: AdapterConfig['bias']
  /** Whether the adapter changes tied embeddings and head together. */
  readonly tied: boolean
}

/** PEFT's adapter_config.json of an adapter. */
export const adapterConfigJson = ({ weights, modules, base, modulesToSave, bias, tied }: AdapterDescription) => {
  const ranks = new Map([...weights].map(([path, { lora_A }]) => [path, lora_A.shape.at(-2)!]))
  // float32 rounds α/r: α is restored by rounding to 6 digits
  const alphas = new Map(
    [...weights].map(([path, { scaling }]) => [path, Number((scaling.dataSync()[0]! * ranks.get(path)!).toPrecision(6))])
  )
  const [[r, rank_pattern], [lora_alpha, alpha_pattern]] = [mostFrequent(ranks), mostFrequent(alphas)]
  const isStacked = (path: string) => weights.get(path)!.lora_A.rank === 3
  const [parameters, targets] = [[...weights.keys()].filter(isStacked), [...weights.keys()].filter((path) => !isStacked(path))]
  const dropout = parameters.length > 0 ? 0 : ([...weights.values()][0]?.dropout?.dataSync()[0] ?? 0) // PEFT has none for parameters
  return {
    peft_type: 'LORA',
    task_type: null,
    base_model_name_or_path: base ?? null,
    inference_mode: true,
    r,
    lora_alpha,
    lora_dropout: Number(dropout.toPrecision(6)),
    target_modules: targets.length > 0 ? targetNames(targets, modules) : null,
    target_parameters: parameters.length > 0 ? parameterNames(parameters, modules) : null,
    rank_pattern,
    alpha_pattern,
    bias,
    fan_in_fan_out: false,
    init_lora_weights: true,
    modules_to_save: modulesToSave.length > 0 ? modulesToSave : null,
    use_dora: [...weights.values()].some((weight) => weight.lora_magnitude_vector !== undefined),
    use_rslora: false,
    ...(tied ? { ensure_weight_tying: true } : {})
  }
}

/** Fields of variants that this library does not have; each changes the computation. */
const unsupportedFields = ['fan_in_fan_out', 'lora_bias', 'layer_replication', 'trainable_token_indices', 'alora_invocation_tokens', 'arrow_config', 'kasa_config', 'velora_config', 'monteclora_config', 'use_qalora', 'use_bdlora'] // biome-ignore format: one line

/** Messages for the fields that this library does not support. */
const unsupported = (json: Json): readonly string[] => [
  ...(json.peft_type === 'LORA' ? [] : [`peft_type must be LORA, got ${valueText(json.peft_type)}`]),
  ...unsupportedFields.flatMap((key) => (isNone(json[key]) || json[key] === false ? [] : [`${key} is not supported`])),
  ...(typeof json.init_lora_weights === 'string' && /^(pissa|corda|olora|loftq|lora_ga|mica)/.test(json.init_lora_weights)
    ? [`init_lora_weights ${valueText(json.init_lora_weights)} changes the weights of the base model, which is not supported; save the adapter with path_initial_model_for_weight_conversion`] // biome-ignore format: one line
    : [])
]

const isNone = (value: unknown): boolean => value === undefined || value === null || (Array.isArray(value) && value.length === 0)

const isRank = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 1

const areNames = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every((name) => typeof name === 'string')

/** The message for a value that is neither a list of names nor a regular expression of JavaScript. */
const targetProblem = (key: string, value: unknown): readonly string[] => {
  if (areNames(value)) return []
  if (typeof value !== 'string') return [`${key} must be a list of names or a regular expression`]
  if (key === 'target_modules' && isAllLinear(value)) return []
  const python = pythonSyntax(value)
  if (python === undefined && isRegExp(value)) return []
  const reason = python === undefined ? '' : ` (${python} is not JavaScript)`
  return [`${key} is a regular expression that only Python reads, ${valueText(value)}${reason}; list the names of the modules`]
}

const biases = ['none', 'all', 'lora_only'] as const

const patternNames = ({ layers_pattern: pattern }: Json): readonly string[] =>
  [pattern ?? []].flat().filter((name): name is string => typeof name === 'string' && name !== '')

const malformed = (json: Json): readonly string[] => {
  const { r, lora_alpha: alpha = 8, lora_dropout: dropout = 0, target_modules: targets, modules_to_save: saved = null } = json
  const patterns = [json.rank_pattern ?? {}, json.alpha_pattern ?? {}]
  const { layers_to_transform: layers = null, exclude_modules: excluded = null } = json
  return [
    ...(isRank(r) ? [] : [`r must be an integer of 1 or more, got ${valueText(r)}`]),
    ...(typeof alpha === 'number' && alpha > 0 ? [] : [`lora_alpha must be above 0, got ${valueText(alpha)}`]),
    ...(typeof dropout === 'number' && dropout >= 0 && dropout < 1
      ? []
      : [`lora_dropout must be in [0, 1), got ${valueText(dropout)}`]),
    // target_parameters alone are enough
    ...(isNone(targets) && !isNone(json.target_parameters) ? [] : targetProblem('target_modules', targets)),
    ...(isNone(json.target_parameters) || areNames(json.target_parameters) ? [] : ['target_parameters must be a list of names']),
    ...(json.bias === undefined || biases.some((bias) => bias === json.bias)
      ? []
      : [`bias must be ${biases.map((bias) => `"${bias}"`).join(', ')}, got ${valueText(json.bias)}`]),
    ...(isNone(json.layers_pattern) || areNames([json.layers_pattern].flat())
      ? patternNames(json).flatMap((name) => targetProblem('layers_pattern', name))
      : ['layers_pattern must be a name or a list of names']),
    ...(excluded === null ? [] : targetProblem('exclude_modules', excluded)),
    ...(layers === null || [layers].flat().every((layer) => Number.isSafeInteger(layer) && Number(layer) >= 0)
      ? []
      : ['layers_to_transform must be a layer index or a list of them']),
    ...(saved === null || (Array.isArray(saved) && saved.every((name) => typeof name === 'string'))
      ? []
      : ['modules_to_save must be a list of names']),
    ...(patterns.every(
      (pattern) => isJson(pattern) && Object.entries(pattern).every(([key, n]) => isRegExp(key) && typeof n === 'number' && n > 0)
    )
      ? []
      : ['rank_pattern and alpha_pattern must give numbers above 0 by regular expressions'])
  ]
}

const parseJson = (file: string, source: string): E.Either<Issues, unknown> =>
  E.tryCatch(
    () => JSON.parse(source),
    (error): Issues => [issue('AdapterConfig', `${file}: it is not JSON (${errorText(error)})`, { file })]
  )

const checked = (file: string, json: Json): E.Either<Issues, Json> =>
  whenValid(
    [...unsupported(json), ...malformed(json)].map((problem) => issue('AdapterConfig', `${file}: ${problem}`, { file })),
    () => json
  )

/** Parses `adapter_config.json`. Errors, all of them: `AdapterConfig`, each with the file and the field. */
export const parseAdapterConfig = (file: string, source: string): E.Either<Issues, AdapterConfig> =>
  pipe(
    parseJson(file, source),
    E.chain((json) =>
      isJson(json) ? checked(file, json) : invalid('AdapterConfig', `${file}: it should be a JSON object`, { file })
    ),
    E.map((config) => ({
      base: typeof config.base_model_name_or_path === 'string' ? config.base_model_name_or_path || undefined : undefined,
      rank: config.r as number,
      alpha: (config.lora_alpha ?? 8) as number,
      dropout: (config.lora_dropout ?? 0) as number,
      rslora: config.use_rslora === true,
      targets: (config.target_modules ?? []) as string | readonly string[],
      excluded: (config.exclude_modules ?? []) as string | readonly string[],
      layers: isNone(config.layers_to_transform) ? undefined : ([config.layers_to_transform].flat() as readonly number[]),
      layersPattern: patternNames(config),
      parameters: (config.target_parameters ?? []) as readonly string[],
      bias: (config.bias ?? 'none') as AdapterConfig['bias'],
      dora: config.use_dora === true,
      tied: config.ensure_weight_tying === true,
      modulesToSave: (config.modules_to_save ?? []) as readonly string[],
      rankPattern: (config.rank_pattern ?? {}) as Readonly<Record<string, number>>,
      alphaPattern: (config.alpha_pattern ?? {}) as Readonly<Record<string, number>>
    }))
  )
