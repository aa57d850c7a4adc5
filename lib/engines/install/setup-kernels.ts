import { existsSync } from 'node:fs'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import type { Issues } from '../../error.js'
import type { SetupProgress } from './build-engine.js'
import { kernelsLibrary, makeKernels } from './compile-kernels.js'
import { verifyRecordedHash } from './file-trust.js'
import type { ProcessOptions } from './run-process.js'
import type { Plan } from './setup-plan.js'

export interface SetupKernelsOptions extends ProcessOptions {
  /** Compiles again, also after a failure. */
  readonly force?: boolean
  readonly onProgress?: (progress: SetupProgress) => void
}

/** Whether a compiled library is present whose bytes, owner or permissions are not those of its compilation. */
const isUntrusted = async (library: string): Promise<boolean> =>
  existsSync(library) && E.isLeft(await verifyRecordedHash(library))

/** Compiles the kernels of an engine; a library that fails its check is compiled again. */
export const setupKernels = (
  engine: string,
  plan: Plan,
  { force = false, onProgress, ...options }: SetupKernelsOptions
): TE.TaskEither<Issues, 'ready' | 'made' | 'unused'> => {
  const report = (done: number, total: number): void => onProgress?.({ step: 'compile', item: 'the kernels', done, total })
  const callbacks = { onStart: (): void => report(0, 0), onProgress: report }
  return pipe(
    TE.fromTask(() => isUntrusted(kernelsLibrary(options.env))),
    TE.chain((untrusted) => makeKernels(engine, plan, { ...options, force: force || untrusted, ...callbacks }))
  )
}
