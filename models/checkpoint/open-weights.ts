import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { InternVLError, type Issues, invalid } from '../../lib/error.js'
import { isFile, readSmallText } from '../../lib/files.js'
import { isRecord } from '../../lib/plain-object.js'
import { openCheckpointTensors, type TensorFiles } from '../../lib/safetensors/read.js'
import { openGgufWeights } from '../gguf/gguf-weights.js'
import { folderKindIssue } from './folder-kind.js'

/** The file that names the GGUF files of a folder: `{ "model": PATH, "mmproj": PATH }`. */
export const ggufPointer = 'gguf.json'

/** The paths of a pointer. */
const pathsOf = async (file: string): Promise<readonly string[] | undefined> => {
  const json: unknown = JSON.parse(await readSmallText(file))
  const paths = isRecord(json) ? [json.model, json.mmproj] : []
  return paths.length === 2 && paths.every((path): path is string => typeof path === 'string') ? paths : undefined
}

/**
 * The weights of a checkpoint folder: safetensors, or the GGUF files that the folder points to. Errors: those of
 * `openCheckpointTensors`; `GitLfsPointer`, `Pickle`; `Gguf`.
 */
export const openWeights =
  (dir: string): TaskEither<Issues, TensorFiles> =>
  async () => {
    const pointer = join(dir, ggufPointer)
    if (!(await isFile(pointer))) {
      const opened = await openCheckpointTensors(dir)()
      const kind = E.isLeft(opened) ? await folderKindIssue(dir) : undefined
      return kind ? E.left([kind]) : opened
    }
    try {
      const paths = await pathsOf(pointer)
      return paths
        ? E.right(await openGgufWeights(paths))
        : invalid('Gguf', `${pointer}: expected { "model": PATH, "mmproj": PATH }`, { file: pointer })
    } catch (error) {
      if (error instanceof InternVLError) return E.left(error.issues)
      return invalid('Gguf', `${pointer}: it cannot be read (${(error as Error).message})`, { file: pointer })
    }
  }
