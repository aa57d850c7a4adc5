import { type Command, InvalidArgumentError } from 'commander'
import type { RequestOptions } from '../../engine/engine-types.js'
import type { RowOptions } from '../../jobs/run-batch.js'
import { type GenerationFlags, generationOptions, withDecodingOptions } from './generation-flags.js'

/** Options of commands that answer the rows of a file. */
export interface RowFlags extends GenerationFlags {
  readonly prompt?: string
  readonly promptColumn?: string
  readonly imageColumn?: string
  readonly videoColumn?: string
  readonly idColumn?: string
  readonly folder?: string
}

/** Adds the options of `RowFlags` that concern rows and generation. */
export const withRowOptions = (command: Command): Command =>
  withDecodingOptions(
    command
      .option('--prompt <text>', 'question of the rows that have none, such as "Describe the image."')
      .option('--system <text>', 'system message of the rows that have none')
      .option('--prompt-column <name>', 'column of the question; default: question, prompt or text, or a conversation')
      .option('--image-column <name>', 'column of the images: path, URL, data URL, base64 or bytes; default: image or images')
      .option('--video-column <name>', 'column of the videos; default: video or videos')
      .option('--id-column <name>', 'column of the name of a row; default: id, question_id or custom_id')
      .option('--folder <folder>', 'folder of relative paths of images and videos; default: the folder of the file')
  )

/** Options of rows that were given as flags. */
export const rowOptions = (flags: RowFlags): RowOptions => {
  const { prompt, system, folder, promptColumn, imageColumn, videoColumn, idColumn } = flags
  const { onFewerFrames: _, ...generate } = generationOptions(flags)
  return {
    ...{ prompt, system, folder },
    columns: { prompt: promptColumn, image: imageColumn, video: videoColumn, id: idColumn },
    generate: generate as RequestOptions
  }
}

/** Parses a value with a parser that throws a `RangeError`, for commander. */
export const parsedBy =
  <A>(parse: (text: string) => A) =>
  (text: string): A => {
    try {
      return parse(text)
    } catch (error) {
      throw new InvalidArgumentError((error as Error).message)
    }
  }
