import { readFile } from 'node:fs/promises'
import { sequenceT } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import {
  editDistance,
  errorText,
  type Issue,
  type Issues,
  invalid,
  issue,
  taskValidation,
  validateAll,
  valueText,
  whenValid
} from '../../lib/error.js'
import { isJson, type Json } from '../../models/config/config-fields.js'
import { aliases, type Setting, settings } from './train-settings.js'

type Settings = typeof settings
type Name = keyof Settings
type ValueOf<S> = S extends Setting<infer A, infer D> ? (null extends D ? A | null : A) : never

/** The settings of a training run by dotted path, complete with defaults. */
export type TrainConfig = { readonly [K in Name]: ValueOf<Settings[K]> }

/** Weights of the terms of a preference loss. */
export const preferenceWeights = (c: TrainConfig) => {
  const defaults = c['loss.type'] === 'mpo' ? { dpo: 0.8, bco: 0.2, nll: 1 } : { dpo: 1, bco: 0, nll: 0 }
  return { dpo: c['loss.dpo'] ?? defaults.dpo, bco: c['loss.bco'] ?? defaults.bco, nll: c['loss.nll'] ?? defaults.nll }
}

const currentName = (key: string): string => (Object.hasOwn(aliases, key) ? aliases[key]! : key)

/** Levels of nested sections that are read. */
const maxSections = 8

/** Values of nested objects by dotted path, old names of settings replaced by their current names. */
const flatten = (json: Json, path = '', level = 1): Readonly<Record<string, unknown>> =>
  Object.fromEntries(
    Object.entries(json).flatMap(([key, value]) =>
      isJson(value) && level < maxSections
        ? Object.entries(flatten(value, `${path}${key}.`, level + 1))
        : [[currentName(`${path}${key}`), value] as const]
    )
  )

const entries = () => Object.entries(settings) as ReadonlyArray<readonly [Name, Setting<unknown>]>

const lastPart = (name: string): string => name.slice(name.lastIndexOf('.') + 1)

/** The name closest to a misspelt one; the last part of a dotted name is compared too. */
export const nearest = (name: string, names: readonly string[]): string => {
  const cost = (other: string) => Math.min(editDistance(name, other), editDistance(lastPart(name), lastPart(other)) + 0.5)
  return names.reduce((best, other) => (cost(other) < cost(best) ? other : best))
}

/** A hint for an unknown setting: the nearest name, and the other settings of its section. */
const suggestion = (key: string): string => {
  const section = key.slice(0, key.indexOf('.') + 1)
  const names = section === '' ? [] : Object.keys(settings).filter((name) => name.startsWith(section))
  if (names.length === 0) return `did you mean ${nearest(key, Object.keys(settings))}?`
  const best = nearest(key, names)
  return `did you mean ${best}? The other settings of this section are ${names.filter((name) => name !== best).join(', ')}`
}

const configIssues = (given: Readonly<Record<string, unknown>>, file: string): readonly Issue[] => [
  ...Object.keys(given)
    .filter((key) => !Object.hasOwn(settings, key))
    .map((key) => issue('ConfigKey', `${file}: ${key}: no such setting; ${suggestion(key)}`, { key })),
  ...entries().flatMap(([key, { kind, required }]) => {
    const value = given[key] ?? null
    if (value === null)
      return required ? [issue('ConfigField', `${file}: ${key} is missing: expected ${kind.expected}`, { key })] : []
    if (kind.is(value)) return []
    const message = `${file}: ${key}: expected ${kind.expected}, got ${valueText(value)}`
    return [issue('ConfigField', message, { key, expected: kind.expected, actual: value })]
  })
]

/** Settings from JSON, with defaults for the others. Errors: every unknown key and every wrong value. */
export const trainConfig = (json: Json, file = 'config'): E.Either<Issues, TrainConfig> => {
  const given = flatten(json)
  const complete = () => Object.fromEntries(entries().map(([key, { value }]) => [key, given[key] ?? value]))
  return whenValid(configIssues(given, file), () => complete() as TrainConfig)
}

/** JSON without comments (`//` and block comments) and trailing commas; line numbers stay the same. */
export const withoutComments = (source: string): string => {
  const string = '"(?:[^"\\\\]|\\\\.)*"'
  const clean = source.replace(new RegExp(`(${string})|//[^\\n]*|/\\*[\\s\\S]*?\\*/`, 'g'), (all, text?: string) =>
    text === undefined ? all.replace(/[^\n]/g, ' ') : text
  )
  return clean.replace(new RegExp(`(${string})|,(\\s*[}\\]])`, 'g'), (_, text?: string, end?: string) => text ?? ` ${end}`)
}

type Assignment = readonly [key: string, value: unknown]

/** `key=value`; the value is JSON, or else a string. */
const parseAssignment = (text: string): E.Either<Issues, Assignment> => {
  const [, key, value = ''] = /^([^=]+)=(.*)$/s.exec(text) ?? []
  if (key === undefined) return invalid('ConfigSet', `--set ${text}: expected key=value`, { assignment: text })
  return E.right([
    key,
    pipe(
      E.tryCatch(() => JSON.parse(value) as unknown, String),
      E.getOrElse((): unknown => value)
    )
  ])
}

const parseFile = (source: string, file: string): E.Either<Issues, Json> =>
  pipe(
    E.tryCatch(
      () => JSON.parse(withoutComments(source)) as unknown,
      (error): Issues => [issue('ConfigFile', `${file}: not valid JSON (${errorText(error)})`, { file })]
    ),
    E.filterOrElse(isJson, (): Issues => [issue('ConfigFile', `${file}: expected one JSON object of settings`, { file })])
  )

const readSource = (file: string): TE.TaskEither<Issues, string> =>
  TE.tryCatch(
    () => readFile(file, 'utf8'),
    (error): Issues => {
      const code = (error as NodeJS.ErrnoException).code
      return [issue('ConfigFile', `${file}: cannot be read (${code}); \`internvl train --init\` writes an example`, { file })]
    }
  )

/** Reads the settings of a run. The assignments of `set` override the file, which may contain comments and trailing commas. */
export const readTrainConfig = (file: string, set: readonly string[] = []): TE.TaskEither<Issues, TrainConfig> =>
  pipe(
    sequenceT(taskValidation)(
      TE.fromEither(validateAll(set.map(parseAssignment))),
      pipe(
        readSource(file),
        TE.chainEitherK((source) => parseFile(source, file))
      )
    ),
    TE.chainEitherK(([assignments, json]) => {
      const override = (all: Json, [key, value]: Assignment): Json => ({ ...all, [currentName(key)]: value })
      return trainConfig(assignments.reduce(override, flatten(json)), file)
    })
  )

/** An example file for `readTrainConfig` with every setting, its default and its description. */
export const exampleConfig = (given: Readonly<Record<string, unknown>> = { output: 'tuned', data: 'train.jsonl' }): string => {
  const all = entries()
  const line = (name: string, key: string, { kind, value, description }: Setting<unknown>, indent: string) =>
    `${indent}// ${description}: ${kind.expected}\n${indent}${JSON.stringify(name)}: ${JSON.stringify(given[key] ?? value)},`
  const sections = [...new Set(all.map(([key]) => (key.includes('.') ? key.split('.')[0]! : '')))]
  const bodies = sections.map((section) => {
    const members = all.filter(([key]) => (section === '' ? !key.includes('.') : key.startsWith(`${section}.`)))
    const lines = members.map(([key, s]) =>
      line(key.slice(section === '' ? 0 : section.length + 1), key, s, section === '' ? '  ' : '    ')
    )
    return section === '' ? lines.join('\n') : `  ${JSON.stringify(section)}: {\n${lines.join('\n')}\n  },`
  })
  return `{\n${bodies.join('\n')}\n}\n`
}
