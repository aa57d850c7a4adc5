import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, invalid } from '../../lib/error.js'
import { disposeParams, initParams, namedParameters } from '../../lib/params.js'
import type { TensorFiles } from '../../lib/safetensors/read.js'
import type { Planned } from '../checkpoint/fuse.js'
import { renamed } from '../checkpoint/fuse.js'
import { openCheckpoint } from '../checkpoint/open-checkpoint.js'
import type { InternVLConfig } from '../config/model-config.js'
import { internVLParts } from '../internvl/internvl-keys.js'
import { projector } from '../internvl/projector.js'
import { computedFiles } from './joined-files.js'

/** A projector, and the fields of the configuration that belong to it. Close `files` after use. */
export interface ProjectorPart {
  readonly files: TensorFiles
  readonly plan: readonly Planned[]
  readonly config: Pick<InternVLConfig, 'downsampleRatio' | 'psVersion' | 'projectorHiddenAct'>
}

const prefix = `${internVLParts.projector}.`

/** Fields of a fresh projector: those of InternVL 2 and later. */
export const freshProjector: ProjectorPart['config'] = { downsampleRatio: 0.5, psVersion: 'v2', projectorHiddenAct: 'gelu' }

/** A projector with random weights of a seed: normal with standard deviation 0.02, biases of zeros, as Transformers initializes it. */
export const initProjector = (config: InternVLConfig, seed: number): ProjectorPart => {
  const params = initParams(projector(config), seed)
  const tensors = namedParameters(params).map(([path, tensor]) => {
    return [prefix + path, { shape: tensor.shape, values: tensor.dataSync() as Float32Array }] as const
  })
  disposeParams(params)
  const files = computedFiles(new Map(tensors))
  return { files, plan: [...files.entries.values()].map((entry) => renamed(entry, entry.key)), config: freshProjector }
}

/** The features that a projector reads and writes. */
const widths = ({ visionConfig, textConfig }: InternVLConfig): string =>
  `features of ${visionConfig.hiddenSize} to ${textConfig.hiddenSize}`

/**
 * The projector of an InternVL folder, for parts of the same hidden sizes.
 * Errors: `ProjectorMismatch` for other sizes; those of `openCheckpoint`.
 */
export const openProjector = (dir: string, config: InternVLConfig): TE.TaskEither<Issues, ProjectorPart> =>
  pipe(
    openCheckpoint(dir),
    TE.chain((opened) => async (): Promise<E.Either<Issues, ProjectorPart>> => {
      const [has, needs] = [widths(opened.config), widths(config)]
      if (has === needs) {
        const { files, plan, config: fields } = opened
        return E.right({ files, plan: plan.filter(({ key }) => key.startsWith(prefix)), config: fields })
      }
      await opened.files.close()
      const message = `${dir}: its projector maps ${has}, and these parts need ${needs}; leave projector out for a fresh one`
      return invalid('ProjectorMismatch', message, { file: dir, expected: needs, actual: has })
    })
  )
