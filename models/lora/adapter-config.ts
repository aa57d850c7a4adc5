import * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import type { LoraWeight } from '../../lib/nn/linear.js'

/** PEFT's `LoraConfig`, as far as it says what is computed. */
export interface AdapterConfig {
  /** Folder or name of the model that it was made for. */
  readonly base: string | undefined
  readonly rank: number
  readonly alpha: number
  readonly dropout: number
  /** Scaled by α/√r instead of α/r. */
  readonly rslora: boolean
  /** Names at the end of a module's path, or a regular expression for all of it. */
  readonly targets: readonly string[] | string
  /** Names at the end of the paths of modules that are replaced as a whole. */
  readonly modulesToSave: readonly string[]
  /** Ranks and alphas of modules that have their own: a path's end, as a regular expression. */
  readonly rankPattern: Readonly<Record<string, number>>
  readonly alphaPattern: Readonly<Record<string, number>>
}

/** A module's own number where a pattern names it, else that of all. Source: PEFT's `get_pattern_key`. */
const patterned = (patterns: Readonly<Record<string, number>>, module: string, otherwise: number): number => {
  const key = Object.keys(patterns).find((pattern) => new RegExp(`^(?:.*\\.)?(?:${pattern})$`).test(module))
  return key === undefined ? otherwise : patterns[key]!
}

export const rankOf = ({ rank, rankPattern }: AdapterConfig, module: string): number => patterned(rankPattern, module, rank)
export const alphaOf = ({ alpha, alphaPattern }: AdapterConfig, module: string): number => patterned(alphaPattern, module, alpha)

/** The modules that the targets name. Source: PEFT's `check_target_module_exists`. */
export const targetsOf = ({ targets }: AdapterConfig, modules: readonly string[]): readonly string[] =>
  modules.filter((module) =>
    typeof targets === 'string'
      ? targets === 'all-linear' || new RegExp(`^(?:${targets})$`).test(module)
      : targets.some((target) => module === target || module.endsWith(`.${target}`))
  )

const escaped = (path: string): string => path.replaceAll('.', '\\.')

/** The number that most have, and the others by path. */
const usual = (numbers: ReadonlyMap<string, number>): readonly [number, Readonly<Record<string, number>>] => {
  const counts = new Map<number, number>()
  for (const n of numbers.values()) counts.set(n, (counts.get(n) ?? 0) + 1)
  const most = [...counts].reduce((a, b) => (b[1] > a[1] ? b : a))[0]
  return [most, Object.fromEntries([...numbers].flatMap(([path, n]) => (n === most ? [] : [[escaped(path), n]])))]
}

/** Last names where they select the same modules, else whole paths. */
const targetNames = (chosen: readonly string[], modules: readonly string[]): readonly string[] => {
  const names = [...new Set(chosen.map((path) => path.split('.').at(-1)!))]
  return modules.filter((path) => names.includes(path.split('.').at(-1)!)).length === chosen.length ? names : chosen
}

/** The JSON of PEFT's configuration for LoRA weights, by module. */
export const configOf = (
  weights: ReadonlyMap<string, LoraWeight>,
  modules: readonly string[],
  base: string | undefined,
  saved: readonly string[]
) => {
  const ranks = new Map([...weights].map(([path, { lora_A }]) => [path, lora_A.shape[0]]))
  // float32 keeps α/r a little off: the α that was meant has few digits
  const alphas = new Map(
    [...weights].map(([path, { lora_A, scaling }]) => [path, Number((scaling.dataSync()[0]! * lora_A.shape[0]).toPrecision(6))])
  )
  const [[r, rank_pattern], [lora_alpha, alpha_pattern]] = [usual(ranks), usual(alphas)]
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

type Json = Readonly<Record<string, unknown>>

/** Fields that change what is computed in ways that are not supported, and what they must be instead. */
const unsupported = (json: Json): readonly string[] => [
  ...(json.peft_type === 'LORA' ? [] : [`peft_type must be LORA, got ${JSON.stringify(json.peft_type)}`]),
  ...(json.bias === undefined || json.bias === 'none' ? [] : [`bias must be "none", got ${JSON.stringify(json.bias)}`]),
  ...['use_dora', 'fan_in_fan_out', 'lora_bias'].flatMap((key) => (json[key] ? [`${key} is not supported`] : [])),
  ...['layers_to_transform', 'layer_replication', 'target_parameters', 'trainable_token_indices', 'exclude_modules'].flatMap(
    (key) => (isNone(json[key]) ? [] : [`${key} is not supported`])
  )
]

const isNone = (value: unknown): boolean => value === undefined || value === null || (Array.isArray(value) && value.length === 0)

const isRank = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 1
const isRecord = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)

const isRegExp = (source: string): boolean => {
  try {
    return Boolean(new RegExp(source))
  } catch {
    return false
  }
}

const malformed = (json: Json): readonly string[] => {
  const { r, lora_alpha: alpha = 8, lora_dropout: dropout = 0, target_modules: targets, modules_to_save: saved = null } = json
  const patterns = [json.rank_pattern ?? {}, json.alpha_pattern ?? {}]
  const names = Array.isArray(targets) && targets.every((each) => typeof each === 'string')
  return [
    ...(isRank(r) ? [] : [`r must be a whole number of 1 or more, got ${JSON.stringify(r)}`]),
    ...(typeof alpha === 'number' && alpha > 0 ? [] : [`lora_alpha must be above 0, got ${JSON.stringify(alpha)}`]),
    ...(typeof dropout === 'number' && dropout >= 0 && dropout < 1
      ? []
      : [`lora_dropout must be in [0, 1), got ${JSON.stringify(dropout)}`]),
    ...(names || (typeof targets === 'string' && isRegExp(targets))
      ? []
      : ['target_modules must be a list of names or a regular expression']),
    ...(saved === null || (Array.isArray(saved) && saved.every((each) => typeof each === 'string'))
      ? []
      : ['modules_to_save must be a list of names']),
    ...(patterns.every(
      (each) => isRecord(each) && Object.entries(each).every(([key, n]) => isRegExp(key) && typeof n === 'number' && n > 0)
    )
      ? []
      : ['rank_pattern and alpha_pattern must give numbers above 0 by regular expressions'])
  ]
}

/** Reads `adapter_config.json`. Errors: `AdapterConfig`, each with the file and the field. */
export const parseAdapterConfig = (file: string, text: string): E.Either<Issues, AdapterConfig> => {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    return E.left([issue('AdapterConfig', `${file}: it is not JSON (${(error as Error).message})`, { file })])
  }
  if (!isRecord(json)) return E.left([issue('AdapterConfig', `${file}: it is no JSON object`, { file })])
  const config = json
  const issues: readonly Issue[] = [...unsupported(config), ...malformed(config)].map((what) =>
    issue('AdapterConfig', `${file}: ${what}`, { file })
  )
  const { base_model_name_or_path: base } = config
  return whenValid(issues, () => ({
    base: typeof base === 'string' && base !== '' ? base : undefined,
    rank: config.r as number,
    alpha: (config.lora_alpha ?? 8) as number,
    dropout: (config.lora_dropout ?? 0) as number,
    rslora: config.use_rslora === true,
    targets: config.target_modules as string | readonly string[],
    modulesToSave: (config.modules_to_save ?? []) as readonly string[],
    rankPattern: (config.rank_pattern ?? {}) as Readonly<Record<string, number>>,
    alphaPattern: (config.alpha_pattern ?? {}) as Readonly<Record<string, number>>
  }))
}
