import { sequenceS } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { selectEngine } from '../../lib/engines/index.js'
import { distinctIssues, getOrThrow, InternVLError, type Issues, issue, orThrow, validation } from '../../lib/error.js'
import { assembleCheckpoint } from '../../models/assemble/assemble-checkpoint.js'
import { openDecoder } from '../../models/assemble/decoder-part.js'
import { openVision } from '../../models/assemble/vision-part.js'
import { convertModel } from '../../models/checkpoint/convert-model.js'
import type { OpenCheckpoint } from '../../models/checkpoint/open-checkpoint.js'
import { type WeightType, weightTypes } from '../../models/checkpoint/save-model.js'
import type { InternVLConfig } from '../../models/config/model-config.js'
import type { ProcessorConfig } from '../../processors/config/processor-config.js'
import { processorConfigFiles } from '../../processors/config/processor-files.js'
import { makeProcessor, type Processor } from '../../processors/processor.js'
import { endOfTurn } from '../checkpoint/load.js'
import { checkTarget } from '../checkpoint/save.js'
import { isGguf } from '../gguf/gguf-folder.js'
import { type HubOptions, modelFolder } from '../hub/index.js'
import { type DecoderText, readDecoderText } from './decoder-text.js'
import { visionPixels } from './vision-pixels.js'

export interface AssembleOptions extends Omit<HubOptions, 'revision' | 'mmproj'> {
  /** Folder, or `org/name` on the hub, of the vision tower: of an InternVL, or of InternViT, DINOv2 or ViT alone. */
  readonly vision: string
  /** Folder, or `org/name` on the hub, of the text decoder; or its GGUF file. */
  readonly decoder: string
  /** Folder to write. */
  readonly out: string
  /** An InternVL folder whose projector is taken; by default a fresh projector with random weights. */
  readonly projector?: string | undefined
  /** Seed of a fresh projector. Default: 0. */
  readonly seed?: number | undefined
  /** Side of a tile in pixels, a multiple of two patches. Default: the tower's own size, rounded down to such a multiple. */
  readonly imageSize?: number | undefined
  /** Most tiles of an image. Default: 12. */
  readonly maxPatches?: number | undefined
  /** Jinja source of a chat template, for a decoder without one or with another. */
  readonly chatTemplate?: string | undefined
  /** Type of the weights. Default: the decoder's; float32 for a GGUF file. */
  readonly dtype?: WeightType | undefined
  /** Writes into a folder that is not empty. */
  readonly force?: boolean | undefined
  /** Called after each piece with the bytes written so far and in total. */
  readonly onProgress?: (done: number, total: number) => void
}

/** A model that was put together. */
export interface Assembled {
  readonly config: InternVLConfig
  /** Number of tokens that were added to the tokenizer. */
  readonly addedTokens: number
}

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`

/** generation_config.json of the decoder, which also ends answers at the end of the template's turn. */
const generationFile = ({ generation }: DecoderText, processor: Processor): string => {
  const listed = [generation.eos_token_id].flat().filter((id) => typeof id === 'number')
  const ids = [...new Set([...listed, ...endOfTurn(processor)])]
  return json({ ...generation, ...(ids.length > 0 ? { eos_token_id: ids.length === 1 ? ids[0] : ids } : {}) })
}

/** The files beside config.json and the weights. Errors: a chat template that cannot render a conversation. */
const processorFiles = (text: DecoderText, config: ProcessorConfig, out: string): E.Either<Issues, ReadonlyMap<string, string>> =>
  pipe(
    makeProcessor(config, text.tokenizer, text.template, out),
    E.chainFirst((processor) => processor.render([{ role: 'user', content: [{ type: 'image' }, { type: 'text', text: 'x' }] }])),
    E.map(
      (processor) =>
        new Map([
          ...(processorConfigFiles(config) as ReadonlyMap<string, string>),
          ['tokenizer.json', json(text.tokenizerJson)],
          ['tokenizer_config.json', json(text.tokenizerConfig)],
          ['chat_template.jinja', text.template.source],
          ['generation_config.json', generationFile(text, processor)]
        ])
    )
  )

/** Both parts open, with the decoder's texts; all errors together. */
const openParts = async (vision: string, decoder: string, chatTemplate: string | undefined) => {
  const [part, text] = [await openVision(vision)(), await readDecoderText(decoder, isGguf(decoder), chatTemplate)()]
  const opened = await openDecoder(decoder)()
  const all = sequenceS(validation)({ part, decoder: opened, text })
  if (E.isLeft(all) && E.isRight(part)) await part.right.files.close()
  if (E.isLeft(all) && E.isRight(opened)) await opened.right.files.close()
  return pipe(all, E.mapLeft(distinctIssues), getOrThrow)
}

const write = async (checkpoint: OpenCheckpoint, text: DecoderText, vision: string, options: AssembleOptions): Promise<void> => {
  const { out, maxPatches, onProgress } = options
  const { visionConfig, imageSeqLength, dtype: own } = checkpoint.config
  const dtype = options.dtype ?? (own !== undefined && own in weightTypes ? (own as WeightType) : 'float32')
  const pixels = { side: visionConfig.imageSize[0], imageSeqLength, maxPatches }
  await orThrow(
    pipe(
      visionPixels(vision, pixels),
      TE.chainEitherK((config) => processorFiles(text, config, out)),
      TE.chain((files) => convertModel(checkpoint, out, { layout: 'hf', dtype, files, ...(onProgress ? { onProgress } : {}) }))
    )
  )
}

/**
 * Puts a new InternVL together from a vision tower, a text decoder and a projector, which is fresh unless a folder with one is given, and
 * writes its checkpoint folder, whole or not at all. `load` and Transformers open the folder.
 *
 * Visual tokens are added to the tokenizer; their embeddings, and the rows of an own head, are the mean of the other tokens', as in
 * InternVL's training. The decoder's chat template is kept, with placeholders for images and videos. The projector has to be trained
 * before the model sees anything. Throws an `InternVLError` with all errors of the parts.
 *
 * `await assemble({ vision: 'facebook/dinov2-small', decoder: 'Qwen/Qwen3-0.6B', out: 'mine' })`
 */
export const assemble = async (options: AssembleOptions): Promise<Assembled> => {
  const { out, projector, seed, imageSize, chatTemplate, force = false, ...hub } = options
  const folderOf = (name: string, model: string): Promise<string> => {
    if (!isGguf(model)) return orThrow(modelFolder(model, hub))
    throw new InternVLError([issue('Gguf', `${model}: ${name} is taken from a folder; only the decoder may be a GGUF file`)])
  }
  const vision = await folderOf('the vision tower', options.vision)
  const decoder = isGguf(options.decoder) ? options.decoder : await folderOf('the decoder', options.decoder)
  const projectorFolder = projector === undefined ? undefined : await folderOf('the projector', projector)
  await checkTarget([vision, decoder], out, force)
  await selectEngine()
  const { part, decoder: decoderPart, text } = await openParts(vision, decoder, chatTemplate)
  const { newIds, size, imageTokenId } = text
  const checkpoint = await orThrow(
    assembleCheckpoint(part, decoderPart, {
      ...{ vocabulary: { newIds, size }, imageTokenId },
      ...{ imageSize, projector: projectorFolder, seed }
    })
  )
  try {
    await write(checkpoint, text, vision, options)
  } finally {
    await checkpoint.files.close()
  }
  return { config: checkpoint.config, addedTokens: newIds.length }
}
