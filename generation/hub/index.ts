import { stat } from 'node:fs/promises'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issues, issue } from '../../lib/error.js'
import type { HubOptions } from './hub-settings.js'
import { badName, isPath, isRepoName } from './repo-name.js'

export type { HubOptions, HubProgress } from './hub-settings.js'

/**
 * The folder of a model: `model` itself where something of that name is here, else, when it reads `org/name`, that repository of
 * the hub in the cache, downloaded as far as it is not there. Errors: `FolderMissing` for what can only be a path, `BadModelName`,
 * and those of `snapshotDownload`.
 *
 * `await modelFolder('OpenGVLab/InternVL3-1B-hf', { revision: 'main' })()`
 */
export const modelFolder =
  (model: string, options: HubOptions = {}): TaskEither<Issues, string> =>
  async () => {
    const isHere = await stat(model).then(
      () => true,
      () => false
    )
    if (isHere && options.revision !== undefined)
      options.onRemark?.(`${model} is a folder here: revision ${options.revision} is of no use`)
    if (isHere) return E.right(model)
    if (isPath(model)) return E.left([issue('FolderMissing', `${model}: no such folder`, { file: model })])
    if (!isRepoName(model)) return E.left([badName(model)])
    const { snapshotDownload } = await import('./snapshot.js') // the hub's package takes a while to load
    return E.map(({ folder }: { readonly folder: string }) => folder)(await snapshotDownload(model, options)())
  }
