import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { InternVLError, type Issue, type Issues, invalid, issue, nameText, valueText, whenValid } from '../../lib/error.js'
import type { TensorFiles } from '../../lib/safetensors/read.js'
import { type Planned, renamed } from '../checkpoint/fuse.js'
import type { KeyRule } from '../checkpoint/keys.js'
import { planByRules } from '../checkpoint/layout.js'
import { keyIssues } from '../checkpoint/open-checkpoint.js'
import { openWeights } from '../checkpoint/open-weights.js'
import { fieldsOf, isJson, type Json } from '../config/config-fields.js'
import { configBounds } from '../config/number-bounds.js'
import { readConfigJson } from '../config/parse-config.js'
import { textConfig } from '../config/text-config.js'
import { decoderFor, findDecoder, type TextConfig } from '../decoders/index.js'
import { modelTypes } from '../families.js'
import { ggufTextConfig } from '../gguf/gguf-config.js'
import { openGgufFile } from '../gguf/gguf-file.js'
import { openGgufWeights } from '../gguf/gguf-weights.js'
import { internVLParts } from '../internvl/internvl-keys.js'
import { dequantizedFiles } from '../quantization/foreign/dequantized-files.js'
import { foreignConfig, quantizationIssues } from '../quantization/foreign-quantization.js'
import { withoutQuantizationNote } from '../quantization/quantized-keys.js'

/** A text decoder of which only the headers of its files are read. Close `files` after use. */
export interface DecoderPart {
  readonly dir: string
  /** Its config.json, without notes of quantization. */
  readonly json: Json
  readonly config: TextConfig
  readonly files: TensorFiles
  /** Its tensors under their keys in the whole model. */
  readonly plan: readonly Planned[]
}

const { decoder, head } = internVLParts

/** Names of the tensors of a decoder alone: those of its part in OpenGVLab's layout, without `language_model.`. */
const rulesOf = (modelType: unknown): readonly KeyRule[] => {
  const renamedKeys = findDecoder((family) => family.modelType === modelType)?.originalKeys?.rules
  if (renamedKeys) return renamedKeys.map((rule) => ({ ...rule, file: rule.file.replace(/^language_model\./, '') }))
  return [
    { file: 'model.**', tree: `${decoder}.**` },
    { file: 'lm_head.**', tree: `${head}.**` }
  ]
}

/** Whether a config.json is that of a vision-language model. */
const isMultimodal = (json: Json): boolean =>
  modelTypes.includes(nameText(json.model_type)) || isJson(json.vision_config) || json.mm_vision_tower !== undefined

const multimodalIssue = (dir: string, type: unknown): Issue =>
  issue(
    'DecoderMultimodal',
    `${dir}/config.json: model_type ${valueText(type)} is a vision-language model; give the folder of a text decoder alone`,
    { file: dir, actual: type }
  )

const parse = (json: Json, file: string): E.Either<Issues, TextConfig> => {
  const issues: Issue[] = []
  const config = textConfig(fieldsOf(json, file, issues, '', configBounds))
  return whenValid(issues, () => config)
}

/** The part where its tensors are those of the decoder; otherwise its files are closed. */
const checked =
  (part: DecoderPart): TE.TaskEither<Issues, DecoderPart> =>
  async () => {
    const known = part.plan.filter(({ key }) => key.startsWith(`${decoder}.`))
    const others = part.plan.filter(({ key }) => !key.startsWith(`${decoder}.`) && key !== `${head}.weight`)
    const issues = [
      ...keyIssues(decoderFor(part.config), known, `${decoder}.`),
      ...others.map(({ key }) => issue('UnexpectedKey', `${key}: unexpected, the decoder declares no such parameter`, { key }))
    ].map((found) => ({ ...found, message: `${part.dir}: ${found.message}` }))
    const result = whenValid(issues, () => part)
    if (E.isLeft(result)) await part.files.close()
    return result
  }

const openFolder = (dir: string): TE.TaskEither<Issues, DecoderPart> =>
  pipe(
    readConfigJson(dir),
    TE.filterOrElse(
      (json) => !isMultimodal(json),
      ({ model_type }): Issues => [multimodalIssue(dir, model_type)]
    ),
    TE.chainEitherK((json) => whenValid(quantizationIssues(json, dir), () => json)),
    TE.bindTo('json'),
    TE.bind('config', ({ json }) => TE.fromEither(parse(json, join(dir, 'config.json')))),
    TE.bind('stored', () => openWeights(dir)),
    TE.chain(({ json, config, stored }) => async () => {
      const foreign = foreignConfig(json)
      const files = foreign ? await dequantizedFiles(stored, foreign) : stored
      return pipe(
        planByRules(rulesOf(json.model_type), files.entries.values(), config),
        E.map((plan) => ({ dir, json: foreign ? withoutQuantizationNote(json) : json, config, files, plan }))
      )
    })
  )

/** A decoder in a GGUF file, whose tensors have the keys of the whole model. */
const openGguf =
  (path: string): TE.TaskEither<Issues, DecoderPart> =>
  async () => {
    try {
      const model = await openGgufFile(path)
      const json = await ggufTextConfig(model).finally(() => model.close())
      if (E.isLeft(json)) return json
      const config = parse(json.right, path)
      if (E.isLeft(config)) return config
      const files = await openGgufWeights([path])
      const plan = [...files.entries.values()].map((entry) => renamed(entry, entry.key))
      return E.right({ dir: path, json: { ...json.right, dtype: 'float32' }, config: config.right, files, plan })
    } catch (error) {
      if (error instanceof InternVLError) return E.left(error.issues)
      return invalid('Gguf', `${path}: it cannot be opened (${(error as Error).message})`, { file: path })
    }
  }

/**
 * Opens a text decoder: a folder as published, also quantized by other software, or a GGUF file.
 * Errors: those of config.json and of the weight files; `DecoderMultimodal`; `Gguf`; `MissingKey`, `UnexpectedKey`, `ShapeMismatch`.
 */
export const openDecoder = (path: string): TE.TaskEither<Issues, DecoderPart> =>
  pipe(/\.gguf$/i.test(path) ? openGguf(path) : openFolder(path), TE.chain(checked))
