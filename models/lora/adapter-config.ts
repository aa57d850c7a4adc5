import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { errorText, type Issues, invalid, issue, valueText, whenValid } from '../../lib/error.js'
import type { LoraWeight } from '../../lib/nn/linear.js'
import { isJson, type Json } from '../config/config-fields.js'
import { matchesModule } from './module-pattern.js'

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

const matchesTargets = (targets: readonly string[] | string, module: string): boolean =>
  typeof targets === 'string'
    ? targets === 'all-linear' || matchesModule(`^(?:${targets})$`, module)
    : targets.some((target) => module === target || module.endsWith(`.${target}`))

/** Index of the layer that a module is in: the last number in the module's path. */
const layerOf = (module: string): number | undefined => {
  const index = /.*\.[^.]*\.(\d+)\./.exec(module)?.[1]
  return index === undefined ? undefined : Number(index)
}

/** The modules that the targets match. Source: PEFT's `check_target_module_exists`. */
export const targetedModules = ({ targets, excluded, layers }: AdapterConfig, modules: readonly string[]): readonly string[] =>
  modules.filter(
    (module) =>
      matchesTargets(targets, module) &&
      !(excluded.length > 0 && matchesTargets(excluded, module)) &&
      (layers === undefined || targets.includes(module) || layers.includes(layerOf(module) ?? -1)) // a whole path counts in any layer
  )

const escaped = (path: string): string => path.replaceAll('.', '\\.')

/** The most frequent value, and the other values by path. */
const mostFrequent = (numbers: ReadonlyMap<string, number>): readonly [number, Readonly<Record<string, number>>] => {
  const counts = new Map<number, number>()
  for (const n of numbers.values()) counts.set(n, (counts.get(n) ?? 0) + 1)
  const most = [...counts].reduce((a, b) => (b[1] > a[1] ? b : a))[0]
  return [most, Object.fromEntries([...numbers].flatMap(([path, n]) => (n === most ? [] : [[escaped(path), n]])))]
}

/** The last names of the paths where they select exactly these modules, else the whole paths. */
const targetNames = (chosen: readonly string[], modules: readonly string[]): readonly string[] => {
  const names = [...new Set(chosen.map((path) => path.split('.').at(-1)!))]
  return modules.filter((path) => names.includes(path.split('.').at(-1)!)).length === chosen.length ? names : chosen
}

/** PEFT's adapter_config.json for LoRA weights by module. */
export const adapterConfigJson = (
  weights: ReadonlyMap<string, LoraWeight>,
  modules: readonly string[],
  base: string | undefined,
  saved: readonly string[]
) => {
  const ranks = new Map([...weights].map(([path, { lora_A }]) => [path, lora_A.shape[0]]))
  // float32 rounds α/r: α is restored by rounding to 6 digits
  const alphas = new Map(
    [...weights].map(([path, { lora_A, scaling }]) => [path, Number((scaling.dataSync()[0]! * lora_A.shape[0]).toPrecision(6))])
  )
  const [[r, rank_pattern], [lora_alpha, alpha_pattern]] = [mostFrequent(ranks), mostFrequent(alphas)]
  const dropout = [...weights.values()][0]?.dropout?.dataSync()[0] ?? 0
  return {
    peft_type: 'LORA',
    task_type: null,
    base_model_name_or_path: base ?? null,
    inference_mode: true,
    r,
    lora_alpha,
    lora_dropout: Number(dropout.toPrecision(6)),
    target_modules: targetNames([...weights.keys()], modules),
    rank_pattern,
    alpha_pattern,
    bias: 'none',
    fan_in_fan_out: false,
    init_lora_weights: true,
    modules_to_save: saved.length > 0 ? saved : null,
    use_dora: false,
    use_rslora: false
  }
}

/** Messages for the fields that this library does not support. */
const unsupported = (json: Json): readonly string[] => [
  ...(json.peft_type === 'LORA' ? [] : [`peft_type must be LORA, got ${valueText(json.peft_type)}`]),
  ...(json.bias === undefined || json.bias === 'none' ? [] : [`bias must be "none", got ${valueText(json.bias)}`]),
  ...['use_dora', 'fan_in_fan_out', 'lora_bias'].flatMap((key) => (json[key] ? [`${key} is not supported`] : [])),
  ...['layers_pattern', 'layer_replication', 'target_parameters', 'trainable_token_indices'].flatMap((key) =>
    isNone(json[key]) ? [] : [`${key} is not supported`]
  )
]

const isNone = (value: unknown): boolean => value === undefined || value === null || (Array.isArray(value) && value.length === 0)

const isRank = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 1

const isRegExp = (source: string): boolean => {
  try {
    return Boolean(new RegExp(source))
  } catch {
    return false
  }
}

const areNames = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every((name) => typeof name === 'string')

/** The message for a value that is neither a list of names nor a regular expression of JavaScript. */
const targetProblem = (key: string, value: unknown): readonly string[] => {
  if (areNames(value)) return []
  if (typeof value !== 'string') return [`${key} must be a list of names or a regular expression`]
  return isRegExp(value)
    ? []
    : [`${key} is a regular expression that only Python reads, ${valueText(value)}; list the names of the modules`]
}

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
    ...targetProblem('target_modules', targets),
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
      targets: config.target_modules as string | readonly string[],
      excluded: (config.exclude_modules ?? []) as string | readonly string[],
      layers: isNone(config.layers_to_transform) ? undefined : ([config.layers_to_transform].flat() as readonly number[]),
      modulesToSave: (config.modules_to_save ?? []) as readonly string[],
      rankPattern: (config.rank_pattern ?? {}) as Readonly<Record<string, number>>,
      alphaPattern: (config.alpha_pattern ?? {}) as Readonly<Record<string, number>>
    }))
  )
