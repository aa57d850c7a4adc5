import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, issue } from '../../error.js'
import { cpuFlags } from '../machine.js'
import { cacheFolder } from './engine-folder.js'
import { setupHint } from './hints.js'
import { type Command, complaint, type Failed, type RunOptions, run } from './process.js'
import type { Plan } from './setup-plan.js'
import { tensorflowVersion } from './setup-plan.js'
import { findTool } from './toolchain.js'

const folder = fileURLToPath(new URL('../kernels', import.meta.url))

/** For the processor at hand first; a compiler that can't name it compiles for any. */
const targets: readonly (readonly string[])[] = [[process.arch === 'arm64' ? '-mcpu=native' : '-march=native'], []]
const flags = ['-O3', '-std=c++17', '-fPIC', '-shared', '-fvisibility=hidden', '-pthread']

const sources = (): readonly string[] =>
  readdirSync(folder)
    .filter((name) => /\.(cc|h)$/.test(name))
    .sort()
    .map((name) => join(folder, name))

/**
 * Where the compiled kernels lie: one file for these sources and this processor, so that neither a changed kernel nor a home folder
 * shared with another machine ever loads the wrong one.
 */
export const kernelsLibrary = (env: NodeJS.ProcessEnv = process.env): string => {
  const hash = createHash('sha256')
  for (const path of sources()) hash.update(readFileSync(path))
  hash.update(JSON.stringify([tensorflowVersion, flags, targets, process.platform, process.arch, [...cpuFlags()].sort()]))
  return join(cacheFolder(env), 'kernels', `${hash.digest('hex').slice(0, 16)}.node`)
}

/** Why kernels are not there: what the compiler said the last time, or that nobody asked it. */
export const kernelsIssue = (library: string): Issues => {
  const said = existsSync(`${library}.failed`) ? readFileSync(`${library}.failed`, 'utf8') : ''
  const why = said ? `did not compile (${said})` : 'are not compiled'
  const mend = said ? `${setupHint} -- --force`.replace(/^(npx .*) --( --force)$/, '$1$2') : setupHint
  return [issue('NoKernels', `the kernels for this processor ${why}; models run slower without; \`${mend}\``, { mend })]
}

export interface MakeOptions extends RunOptions {
  /** Compiles them anew, and tries again what failed before. */
  readonly force?: boolean
  readonly onStart?: () => void
}

/** Compiles for the first target that works, and loads the result beside the addon in a process of its own. */
const compile = (
  compiler: Command,
  engine: string,
  plan: Plan,
  out: string,
  options: RunOptions
): TE.TaskEither<Failed, string> => {
  const inputs = [
    ...sources().filter((path) => path.endsWith('.cc')),
    ...plan.libraries.map((name) => join(engine, 'tensorflow', name))
  ]
  const load = `require(${JSON.stringify(join(engine, 'tfjs_binding.node'))}); require(${JSON.stringify(out)})`
  return targets
    .map((target) =>
      pipe(
        run(compiler, [...flags, ...target, ...inputs, `-Wl,-rpath,${join(engine, 'tensorflow')}`, '-o', out], options),
        TE.chain(() =>
          run([process.execPath], ['-e', load], {
            ...options,
            env: { ...options.env, TF_CPP_MIN_LOG_LEVEL: '3', NODE_OPTIONS: '' }
          })
        )
      )
    )
    .reduce((first, second) => TE.orElse(() => second)(first))
}

/**
 * Compiles the kernels (C++, beside this file) against a finished engine, into the cache: some ten seconds once, nothing when they
 * are there. A build for a GPU has none: they are for the CPU. What fails is written down and not tried again unless forced; models
 * then run on compositions of TensorFlow's ops.
 */
export const makeKernels = (
  engine: string,
  plan: Plan,
  { force = false, onStart, ...options }: MakeOptions
): TE.TaskEither<Issues, 'ready' | 'made' | 'unused'> =>
  pipe(
    TE.of<Issues, string>(kernelsLibrary(options.env)),
    TE.chain((library) => {
      if (plan.variant === 'cuda') return TE.right('unused' as const)
      if (existsSync(library) && !force) return TE.right('ready' as const)
      if (existsSync(`${library}.failed`) && !force) return TE.left(kernelsIssue(library))
      onStart?.()
      const staging = `${library.replace(/\.node$/, '')}.${process.pid}.node`
      const publish = async (result: E.Either<Failed, string>): Promise<E.Either<Issues, 'made'>> => {
        if (E.isRight(result)) await rename(staging, library)
        else if (!options.signal?.aborted) await writeFile(`${library}.failed`, complaint(result.left))
        await rm(staging, { force: true })
        return E.bimap(
          () => kernelsIssue(library),
          () => 'made' as const
        )(result)
      }
      return pipe(
        findTool('compiler', options.env),
        TE.mapLeft((missing): Issues => [missing]),
        TE.chainFirstTaskK(() => () => mkdir(dirname(library), { recursive: true })),
        TE.chain((compiler) => TE.fromTask(compile(compiler, engine, plan, staging, options))),
        TE.chain((result) => () => publish(result))
      )
    })
  )
