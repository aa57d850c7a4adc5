import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { errorText, type Issue, type Issues, invalid, issue, whenValid } from '../../lib/error.js'
import { readSmallText } from '../../lib/files.js'
import { dialectOfType, families, modelTypes, unsupportedModel } from '../families.js'
import { fieldsOf, isJson, type Json, oneOf } from './config-fields.js'
import type { InternVLConfig } from './model-config.js'
import { configBounds } from './number-bounds.js'

export type { TextConfig } from '../decoders/index.js'
export type * from './config-types.js'
export type * from './model-config.js'

const asObject = (json: unknown, file: string): E.Either<Issues, Json> =>
  isJson(json) ? E.right(json) : invalid('ConfigNotAnObject', `${file}: it should be a JSON object`, { file })

/** The default `model_type` of a file that has none, by the key of the decoder's configuration. */
const likelyType = (json: Json): string => {
  const dialects = Object.values(families[0].dialects)
  return (dialects.find(({ decoderKey }) => Object.hasOwn(json, decoderKey)) ?? dialects[0]!).modelType
}

/** A `model_type` that is known not to be supported gets an error that says what it is. */
const supported = (json: Json, file: string): E.Either<Issues, Json> => {
  const [type, description] = [json.model_type, unsupportedModel(json)]
  if (description === undefined) return E.right(json)
  const message = `${file}: model_type ${type} is ${description}; this library loads ${modelTypes.join(', ')}`
  return invalid('ModelTypeUnsupported', message, { file, path: 'model_type', expected: modelTypes, actual: type })
}

/**
 * Parses config.json to a typed configuration; absent fields have Transformers' defaults.
 * Errors, all of them: `ConfigField` with `path`, `expected`, `actual` (an unknown `model_type` is one); `ConfigNotAnObject`;
 * `ModelTypeUnsupported`.
 */
export const parseConfig = (json: unknown, file = 'config.json'): E.Either<Issues, InternVLConfig> =>
  pipe(
    asObject(json, file),
    E.chain((object) => supported(object, file)),
    E.chain((object) => {
      const issues: Issue[] = []
      const f = fieldsOf(object, file, issues, '', configBounds)
      const config = dialectOfType(f('model_type', oneOf(modelTypes), likelyType(object))).parse(f)
      return whenValid(issues, () => config)
    })
  )

const readText = (file: string): TE.TaskEither<Issues, string> =>
  TE.tryCatch(
    () => readSmallText(file),
    (error): Issues => {
      const { code, message } = error as NodeJS.ErrnoException
      const why = code === 'ENOENT' ? 'no such file; a checkpoint folder has one' : message
      return [issue('ConfigMissing', `${file}: ${why}`, { file })]
    }
  )

const parseJson = (source: string, file: string): E.Either<Issues, unknown> =>
  E.tryCatch(
    () => JSON.parse(source),
    (error): Issues => [issue('ConfigNotJson', `${file}: it is not JSON (${errorText(error)})`, { file })]
  )

/** Reads config.json of a checkpoint folder as JSON. Errors: `ConfigMissing`, `ConfigNotJson`, `ConfigNotAnObject`. */
export const readConfigJson = (folder: string): TE.TaskEither<Issues, Json> => {
  const file = join(folder, 'config.json')
  return pipe(
    readText(file),
    TE.chainEitherK((source) => parseJson(source, file)),
    TE.chainEitherK((json) => asObject(json, file))
  )
}

/** The configuration of a checkpoint folder. Errors: those of `readConfigJson` and of `parseConfig`. */
export const readConfig = (folder: string): TE.TaskEither<Issues, InternVLConfig> =>
  pipe(
    readConfigJson(folder),
    TE.chainEitherK((json) => parseConfig(json, join(folder, 'config.json')))
  )
