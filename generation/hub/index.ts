import { stat } from 'node:fs/promises'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue } from '../../lib/error.js'
import { finishCommit } from '../../lib/safetensors/commit.js'
import { ggufFolder, isGguf } from '../gguf/gguf-folder.js'
import type { HubOptions } from './hub-settings.js'
import { badName, isPath, isRepoName } from './repo-name.js'

export type { HubOptions, HubProgress } from './hub-settings.js'

const mmprojWithoutGguf = (model: string): Issue =>
  issue('Gguf', `mmproj: ${model} is no GGUF file; a checkpoint folder has its vision tower in itself, leave mmproj out`)

/**
 * The folder of a model: for a GGUF file one that describes the file and its `mmproj`; else `model` itself if it is a local path, or else the cached snapshot of the repository `org/name` of the
 * hub, whose missing files are downloaded. Errors: `FolderMissing` for a path that does not exist, `BadModelName`, and those of
 * `snapshotDownload`.
 *
 * `await modelFolder('OpenGVLab/InternVL3-1B-hf', { revision: 'main' })()`
 */
export const modelFolder =
  (model: string, options: HubOptions = {}): TE.TaskEither<Issues, string> =>
  async () => {
    const isHere = await stat(model).then(
      () => true,
      () => false
    )
    if (isHere && options.revision !== undefined)
      (options.onWarning ?? options.onRemark)?.(`${model} is a local folder: revision ${options.revision} is ignored`)
    if (isGguf(model)) return ggufFolder(model, options.mmproj)()
    if (options.mmproj !== undefined) return E.left([mmprojWithoutGguf(model)])
    if (isHere)
      return pipe(
        finishCommit(model),
        TE.map(() => model)
      )()
    if (isPath(model)) return E.left([issue('FolderMissing', `${model}: no such folder`, { file: model })])
    if (!isRepoName(model)) return E.left([badName(model)])
    const { snapshotDownload } = await import('./snapshot.js') // loading the hub package takes time
    return E.map(({ folder }: { readonly folder: string }) => folder)(await snapshotDownload(model, options)())
  }
