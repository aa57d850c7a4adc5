import { readFile } from 'node:fs/promises'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import {
  count,
  either,
  flag,
  index,
  isJson,
  type Json,
  type Kind,
  listOf,
  oneOf,
  positive,
  text
} from '../../models/config/config-fields.js'
import { nearest } from './nearest.js'

/** A setting: what it may be, what it is unless given (null: not at all), and what it is for. */
interface Field<A, D = unknown> {
  readonly kind: Kind<A>
  readonly value: D
  readonly required: boolean
  readonly says: string
}

const field = <A, D extends A | null>(kind: Kind<A>, value: D, says: string): Field<A, D> => ({
  kind,
  value,
  says,
  required: false
})
const required = <A>(kind: Kind<A>, says: string): Field<A, A> => ({ kind, value: null as A, says, required: true })

const share: Kind<number> = {
  expected: 'a number of 0 or more, below 1',
  is: (v): v is number => typeof v === 'number' && v >= 0 && v < 1
}
const atLeastZero: Kind<number> = {
  expected: 'a number of 0 or more',
  is: (v): v is number => Number.isFinite(v) && (v as number) >= 0
}
const upToOne: Kind<number> = {
  expected: 'a number above 0, at most 1',
  is: (v): v is number => typeof v === 'number' && v > 0 && v <= 1
}
const texts = listOf(text)
const lossKind = oneOf(['sft', 'dpo', 'mpo'])
const reduction = oneOf(['token', 'sample', 'square'])
const schedule = oneOf(['cosine', 'linear', 'constant'])
const weightType = oneOf(['float32', 'bfloat16', 'float16'])

/** What LoRA is usually put beside: every linear layer of the decoder. Source: `wrap_llm_lora` (OpenGVLab). */
const decoderLayers = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'].map(
  (name) => `language_model.**.${name}`
)

/** Every setting of a run by its dotted path: in the file `{ "lora": { "rank": 16 } }`, on the command line `--set lora.rank=16`. */
export const fields = {
  model: field(text, null, 'checkpoint folder, or org/name of the hub; the small demo model by default'),
  output: required(text, 'folder for the result, with checkpoints and logs'),
  data: required(either(text, texts), "InternVL's jsonl, several of them, or a meta file (.json) that names them with repeats"),
  heldOut: field(text, null, 'jsonl that is never trained on: its loss is reported, and chooses the best checkpoint'),
  epochs: field(positive, 1, 'how often the data is gone through'),
  steps: field(count, null, 'so many steps instead'),
  seed: field(index, 0, 'the same seed, the same run'),
  'train.only': field(texts, null, 'patterns of parameters that are trained; all by default, beside LoRA none'),
  'train.freeze': field(texts, [], 'patterns of parameters that are not, such as "vision_tower.**"'),
  'lora.rank': field(count, null, 'trains low-rank updates of this rank instead of the weights'),
  'lora.alpha': field(positive, null, 'they are scaled by alpha / rank; twice the rank by default'),
  'lora.dropout': field(share, 0.05, 'share of their inputs that is dropped'),
  'lora.targets': field(texts, decoderLayers, 'patterns of linear layers'),
  'loss.kind': field(lossKind, 'sft', 'answers, or pairs of a chosen and a rejected answer'),
  'loss.reduction': field(reduction, 'token', 'a sample of x tokens weighs x, 1 or √x'),
  'loss.beta': field(positive, 0.1, 'dpo, mpo: how far answers may go from the reference'),
  'loss.dpo': field(atLeastZero, null, 'weight of the DPO term: 1 for dpo, 0.8 for mpo'),
  'loss.bco': field(atLeastZero, null, 'weight of the BCO term: 0 for dpo, 0.2 for mpo'),
  'loss.nll': field(atLeastZero, null, 'weight of the likelihood of the chosen answer: 0 for dpo, 1 for mpo'),
  'batch.size': field(count, 4, 'samples, or pairs, in memory at once'),
  'batch.accumulation': field(count, 1, 'batches a step'),
  'batch.maxLength': field(count, 8192, 'tokens of a sample at most, or of a row of packed ones'),
  'batch.maxPatches': field(count, null, "tiles of a picture at most; the checkpoint's own number by default"),
  'batch.packing': field(flag, false, 'several samples in a row, each seeing itself alone; batch.size counts rows'),
  'batch.maxTiles': field(count, null, 'tiles of a packed row at most; any number by default'),
  'batch.grouped': field(flag, false, 'samples of like length together'),
  'batch.jpeg': field(flag, false, 'pictures spoilt by JPEG compression of random quality'),
  'optimizer.rate': field(positive, 1e-5, 'the highest learning rate'),
  'optimizer.schedule': field(schedule, 'cosine', 'how it goes down after the warm-up'),
  'optimizer.warmup': field(share, 0.03, 'share of the steps in which it goes up'),
  'optimizer.weightDecay': field(atLeastZero, 0.01, 'of everything but norms and biases'),
  'optimizer.beta1': field(share, 0.9, 'how long the mean of gradients remembers'),
  'optimizer.beta2': field(share, 0.999, 'how long the mean of their squares does'),
  'optimizer.layerDecay': field(upToOne, 1, "factor on the rate from each of the vision tower's layers to the one below"),
  'optimizer.clip': field(positive, 1, 'the largest norm of a gradient'),
  'visual.delta': field(
    either(upToOne, oneOf(['random'] as const)),
    1,
    'V2PE: how far an image token advances the position; random for each image'
  ),
  'regularize.dropout': field(share, 0, "share of the vision layers' outputs that is dropped"),
  'regularize.dropPath': field(share, 0, 'share of samples that skip a branch of the last vision layer'),
  checkpointing: field(flag, false, 'computes layers twice to save memory'),
  'save.every': field(count, 200, 'steps from one checkpoint to the next'),
  'save.keep': field(count, 2, 'checkpoints that stay beside the best'),
  'save.dtype': field(weightType, 'bfloat16', 'type of the saved weights'),
  'evaluate.every': field(count, 200, 'steps from one evaluation of heldOut to the next'),
  'log.every': field(count, 10, 'steps from one line of progress to the next'),
  'log.tensorboard': field(flag, true, 'event files for TensorBoard')
} as const

type Fields = typeof fields
type Name = keyof Fields
type ValueOf<F> = F extends Field<infer A, infer D> ? (null extends D ? A | null : A) : never

/** A run's settings by dotted path, complete. */
export type TrainConfig = { readonly [K in Name]: ValueOf<Fields[K]> }

/** What the terms of a preference loss weigh. */
export const preferenceWeights = (c: TrainConfig) => {
  const usual = c['loss.kind'] === 'mpo' ? { dpo: 0.8, bco: 0.2, nll: 1 } : { dpo: 1, bco: 0, nll: 0 }
  return { dpo: c['loss.dpo'] ?? usual.dpo, bco: c['loss.bco'] ?? usual.bco, nll: c['loss.nll'] ?? usual.nll }
}

/** Values by dotted path; only objects are gone into. */
const flat = (json: Json, path = ''): Readonly<Record<string, unknown>> =>
  Object.fromEntries(
    Object.entries(json).flatMap(([key, value]) =>
      isJson(value) ? Object.entries(flat(value, `${path}${key}.`)) : [[`${path}${key}`, value] as const]
    )
  )

const entries = () => Object.entries(fields) as unknown as ReadonlyArray<readonly [string, Field<unknown>]>
const shown = (value: unknown): string => JSON.stringify(value) ?? String(value)

/** The setting that a misspelt one probably means; where its section is one, of that, with all that the section has. */
const known = (key: string): string => {
  const section = key.slice(0, key.indexOf('.') + 1)
  const own = section === '' ? [] : Object.keys(fields).filter((name) => name.startsWith(section))
  if (own.length === 0) return `the nearest is ${nearest(key, Object.keys(fields))}`
  return `the nearest is ${nearest(key, own)}, and there are ${own.filter((name) => name !== nearest(key, own)).join(', ')}`
}

const issuesIn = (given: Readonly<Record<string, unknown>>, file: string): readonly Issue[] => [
  ...Object.keys(given)
    .filter((key) => !Object.hasOwn(fields, key))
    .map((key) => issue('ConfigKey', `${file}: ${key}: no such setting; ${known(key)}`, { key })),
  ...entries().flatMap(([key, { kind, required }]) => {
    const value = given[key] ?? null
    if (value === null)
      return required ? [issue('ConfigField', `${file}: ${key} is missing; it is ${kind.expected}`, { key })] : []
    if (kind.is(value)) return []
    const message = `${file}: ${key} should be ${kind.expected}; it is ${shown(value)}`
    return [issue('ConfigField', message, { key, expected: kind.expected, actual: value })]
  })
]

/** Settings of JSON, with defaults where it says nothing; every unknown key and every wrong value at once. */
export const trainConfig = (json: Json, file = 'config'): E.Either<Issues, TrainConfig> => {
  const given = flat(json)
  const complete = () => Object.fromEntries(entries().map(([key, { value }]) => [key, given[key] ?? value]))
  return whenValid(issuesIn(given, file), () => complete() as unknown as TrainConfig)
}

/** JSON without its comments (both kinds) and trailing commas; lines stay where they are. */
export const withoutComments = (source: string): string => {
  const string = '"(?:[^"\\\\]|\\\\.)*"'
  const clean = source.replace(new RegExp(`(${string})|//[^\\n]*|/\\*[\\s\\S]*?\\*/`, 'g'), (all, text?: string) =>
    text === undefined ? all.replace(/[^\n]/g, ' ') : text
  )
  return clean.replace(new RegExp(`(${string})|,(\\s*[}\\]])`, 'g'), (_, text?: string, end?: string) => text ?? ` ${end}`)
}

/** `key=value` on top of settings; the value is JSON, or else a text. */
const assigned = (json: Json, assignment: string): Json => {
  const at = assignment.indexOf('=')
  const [key, value] = [assignment.slice(0, at), assignment.slice(at + 1)]
  const parse = () => {
    try {
      return JSON.parse(value) as unknown
    } catch {
      return value
    }
  }
  return { ...flat(json), [key]: parse() }
}

const parsed = (source: string, file: string): E.Either<Issues, Json> => {
  try {
    const json: unknown = JSON.parse(withoutComments(source))
    if (isJson(json)) return E.right(json)
    return E.left([issue('ConfigFile', `${file}: it should hold one object of settings`, { file })])
  } catch (error) {
    return E.left([issue('ConfigFile', `${file}: it is not JSON (${(error as Error).message})`, { file })])
  }
}

/** Reads a run's settings; `set` are assignments that have the last word. Comments and trailing commas are allowed. */
export const readTrainConfig =
  (file: string, set: readonly string[] = []): TaskEither<Issues, TrainConfig> =>
  async () => {
    const wrong = set.filter((assignment) => !/^[^=]+=/.test(assignment))
    const issues = wrong.map((assignment) => issue('ConfigSet', `--set ${assignment}: it should read key=value`, { assignment }))
    let source: string
    try {
      source = await readFile(file, 'utf8')
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code
      const message = `${file}: it cannot be read (${code}); \`internvl train --init\` writes an example`
      return whenValid([...issues, issue('ConfigFile', message, { file })], () => undefined as never)
    }
    const json = parsed(source, file)
    if (E.isLeft(json) || issues.length > 0)
      return whenValid([...issues, ...(E.isLeft(json) ? json.left : [])], () => undefined as never)
    return trainConfig(set.reduce(assigned, json.right), file)
  }

/** An example with every setting, its default and what it is for: what `readTrainConfig` reads. */
export const exampleConfig = (given: Readonly<Record<string, unknown>> = { output: 'tuned', data: 'train.jsonl' }): string => {
  const all = entries()
  const line = (name: string, key: string, { kind, value, says }: Field<unknown>, indent: string) =>
    `${indent}// ${says}: ${kind.expected}\n${indent}${JSON.stringify(name)}: ${shown(given[key] ?? value)},`
  const sections = [...new Set(all.map(([key]) => (key.includes('.') ? key.split('.')[0]! : '')))]
  const bodies = sections.map((section) => {
    const own = all.filter(([key]) => (section === '' ? !key.includes('.') : key.startsWith(`${section}.`)))
    const lines = own.map(([key, f]) =>
      line(key.slice(section === '' ? 0 : section.length + 1), key, f, section === '' ? '  ' : '    ')
    )
    return section === '' ? lines.join('\n') : `  ${JSON.stringify(section)}: {\n${lines.join('\n')}\n  },`
  })
  return `{\n${bodies.join('\n')}\n}\n`
}
