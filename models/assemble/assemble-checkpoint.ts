import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, issue, whenValid } from '../../lib/error.js'
import { resizeGrid } from '../../lib/nn/interpolate.js'
import type { TensorFiles } from '../../lib/safetensors/read.js'
import { tf } from '../../lib/tf.js'
import { type Planned, renamed } from '../checkpoint/fuse.js'
import { type OpenCheckpoint, settleHead } from '../checkpoint/open-checkpoint.js'
import { weightTypes } from '../checkpoint/save-model.js'
import type { Json } from '../config/config-fields.js'
import type { Pair } from '../config/config-types.js'
import type { InternVLConfig } from '../config/model-config.js'
import { configJson } from '../config/translate-config.js'
import { internVLParts } from '../internvl/internvl-keys.js'
import type { DecoderPart } from './decoder-part.js'
import { type GrownVocabulary, growRows, rowsFor } from './grown-rows.js'
import { type ComputedTensor, computedFiles, inJoined, joinedKey, joinFiles } from './joined-files.js'
import { freshProjector, initProjector, openProjector, type ProjectorPart } from './projector-part.js'
import { layerScaleKeys, type VisionPart } from './vision-part.js'

export interface AssembleOptions {
  /** The tokenizer's ids after the visual tokens were added. */
  readonly vocabulary: GrownVocabulary
  readonly imageTokenId: number
  /** Side of a tile in pixels; by default the tower's own, rounded down to whole image tokens. */
  readonly imageSize?: number | undefined
  /** An InternVL folder whose projector is taken; by default a fresh projector. */
  readonly projector?: string | undefined
  /** Seed of a fresh projector; 0 by default. */
  readonly seed?: number | undefined
}

const { vision, embeddings, head } = internVLParts

/** Pixels along each side of a tile that become one image token. */
const tokenSide = ({ config }: VisionPart): number => config.patchSize[0] / freshProjector.downsampleRatio

/** The side of a tile. Errors: `ImageSize` for a side without whole image tokens. */
const tileSide = (part: VisionPart, asked: number | undefined): E.Either<Issues, number> => {
  const [side, trained] = [tokenSide(part), part.config.imageSize[0]]
  const chosen = asked ?? trained - (trained % side)
  const isWhole = Number.isInteger(chosen / side) && chosen > 0
  const message =
    asked === undefined
      ? `${part.dir}/config.json: image_size ${trained} is less than one image token, ${side} pixels`
      : `imageSize: ${asked} is not a multiple of ${side}, two patches of ${part.config.patchSize[0]} pixels; for example ${Math.max(1, Math.round(asked / side)) * side}`
  return whenValid(isWhole ? [] : [issue('ImageSize', message, { actual: chosen })], () => chosen)
}

const dtypeOf = ({ json }: DecoderPart, plan: readonly Planned[]): InternVLConfig['dtype'] => {
  const stated = [json.dtype, json.torch_dtype].find((name) => typeof name === 'string' && Object.hasOwn(weightTypes, name))
  const stored = plan.find(({ key }) => key === `${embeddings}.weight`)?.dtype
  const byType = Object.entries(weightTypes).find(([, type]) => type === stored)?.[0]
  return (stated ?? byType ?? 'float32') as InternVLConfig['dtype']
}

const configOf = (
  part: VisionPart,
  decoder: DecoderPart,
  side: number,
  { vocabulary, imageTokenId }: AssembleOptions
): InternVLConfig => {
  const imageSize: Pair = [side, side]
  const { config: text } = decoder
  return {
    modelType: 'internvl',
    dialect: 'hf',
    visionConfig: { ...part.config, imageSize },
    textConfig: { ...text, vocabSize: rowsFor(text.vocabSize, vocabulary) },
    imageTokenId,
    imageSeqLength: (side / tokenSide(part)) ** 2,
    ...freshProjector,
    visionFeatureLayer: part.featureLayer,
    visionFeatureSelectStrategy: 'default',
    tieWordEmbeddings: text.tieWordEmbeddings,
    dtype: dtypeOf(decoder, decoder.plan),
    original: undefined
  }
}

/** Position embeddings `[1, 1 + from², D]` for `to²` patches. */
const resizePositions = (values: Float32Array, D: number, from: number, to: number): ComputedTensor => {
  const patches = tf.tidy(() => resizeGrid(tf.tensor2d(values.subarray(D), [from ** 2, D]), [from, from], [to, to]).dataSync())
  return { shape: [1, 1 + to ** 2, D], values: Float32Array.from([...values.subarray(0, D), ...patches]) }
}

/** Tensors of the tower that its files do not have as they are needed: resized position embeddings, and layer scales of ones. */
const computedVision = async (part: VisionPart, side: number): Promise<ReadonlyMap<string, ComputedTensor>> => {
  const { hiddenSize: D, patchSize, imageSize } = part.config
  const scales = part.layerScale === undefined ? [] : layerScaleKeys(part.config)
  const scale = (): ComputedTensor => ({ shape: [D], values: new Float32Array(D).fill(part.layerScale!) })
  const ones = scales.map((key) => [key, scale()] as const)
  const key = `${vision}.embeddings.position_embeddings`
  const [from, to] = [imageSize[0], side].map((pixels) => Math.floor(pixels / patchSize[0])) as [number, number]
  if (from === to) return new Map(ones)
  const source = part.plan.find((tensor) => tensor.key === key)!.parts[0]!.source
  const stored = await part.files.readFloat32(part.files.entries.get(source)!)
  return new Map([...ones, [key, resizePositions(stored, D, from, to)]])
}

const plannedOf = (files: TensorFiles): readonly Planned[] =>
  [...files.entries.values()].map((entry) => renamed(entry, entry.key))

/** Embeddings, and a head of its own, with rows for the added tokens. */
const growVocabulary = async (files: TensorFiles, plan: readonly Planned[], vocabulary: GrownVocabulary) => {
  const isTable = ({ key }: Planned) => key === `${embeddings}.weight` || key === `${head}.weight`
  const grown = await Promise.all(
    plan.filter(isTable).map((planned) => growRows(files, planned, vocabulary, (key) => joinedKey('added', key)))
  )
  const added = new Map(grown.map(({ computed: [key, tensor] }) => [key.slice(joinedKey('added', '').length), tensor]))
  return { plan: [...plan.filter((tensor) => !isTable(tensor)), ...grown.map(({ planned }) => planned)], added }
}

const assembled = async (
  part: VisionPart,
  decoder: DecoderPart,
  projector: ProjectorPart,
  config: InternVLConfig,
  { vocabulary }: AssembleOptions
): Promise<E.Either<Issues, OpenCheckpoint>> => {
  const computed = await computedVision(part, config.visionConfig.imageSize[0])
  const stored = { vision: part.files, computed: computedFiles(computed), projector: projector.files, decoder: decoder.files }
  const settled = await settleHead(config, joinFiles(stored), inJoined('decoder', decoder.plan))
  const grown = await growVocabulary(joinFiles(stored), settled.plan, vocabulary)
  const plan = [
    ...inJoined(
      'vision',
      part.plan.filter(({ key }) => !computed.has(key))
    ),
    ...inJoined('computed', plannedOf(stored.computed)),
    ...inJoined('projector', projector.plan),
    ...grown.plan
  ]
  const { downsampleRatio, psVersion, projectorHiddenAct } = projector.config
  const whole: InternVLConfig = { ...settled.config, downsampleRatio, psVersion, projectorHiddenAct }
  const { architectures: _, torch_dtype: __, dtype: ___, ...text } = decoder.json as Json
  return pipe(
    configJson(whole, 'hf', { text_config: text }),
    E.map((json) => ({
      ...{ dir: decoder.dir, json, config: whole, layout: 'hf' as const, plan, stored: plan },
      files: joinFiles({ ...stored, added: computedFiles(grown.added) })
    }))
  )
}

/**
 * The checkpoint of an InternVL with a vision tower, a decoder and a projector: weights are read when the checkpoint is converted. Select
 * an engine first. Takes over both parts: closing the checkpoint's files closes theirs.
 * Errors: `ImageSize`, `ProjectorMismatch`.
 */
export const assembleCheckpoint =
  (part: VisionPart, decoder: DecoderPart, options: AssembleOptions): TE.TaskEither<Issues, OpenCheckpoint> =>
  async () => {
    const result = await pipe(
      TE.fromEither(tileSide(part, options.imageSize)),
      TE.map((side) => configOf(part, decoder, side, options)),
      TE.bindTo('config'),
      TE.bind('projector', ({ config }) =>
        options.projector === undefined
          ? TE.right(initProjector(config, options.seed ?? 0))
          : openProjector(options.projector, config)
      ),
      TE.chain(
        ({ config, projector }) =>
          () =>
            assembled(part, decoder, projector, config, options)
      )
    )()
    if (E.isLeft(result)) await Promise.all([part.files.close(), decoder.files.close()])
    return result
  }
