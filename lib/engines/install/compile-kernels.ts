import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, issue } from '../../error.js'
import { cpuFlags } from '../machine.js'
import { cacheFolder } from './engine-folder.js'
import { recordHash } from './file-trust.js'
import { forceSetupHint, setupHint } from './hints.js'
import { type Command, errorLine, type FailedProcess, type ProcessOptions, runProcess } from './run-process.js'
import type { Plan } from './setup-plan.js'
import { tensorflowVersion } from './setup-plan.js'
import { findTool } from './toolchain.js'

const folder = fileURLToPath(new URL('../kernels/cpu', import.meta.url))

/** Compiler flags: those of this processor, then those of any processor, for a compiler that does not know this one. */
const targets: readonly (readonly string[])[] = [[process.arch === 'arm64' ? '-mcpu=native' : '-march=native'], []]
const baseFlags = ['-O3', '-std=c++17', '-fPIC', '-fvisibility=hidden', '-pthread', `-I${folder}`]

/**
 * Flags of a sanitizer build: `INTERNVL_SANITIZE=address,undefined` or `thread`. Node.js itself is not instrumented, so the sanitizer's
 * runtime must be loaded first. To run the kernel tests under it:
 *
 * 1. `export INTERNVL_SANITIZE=address,undefined`, then set up: it compiles the kernels with these flags.
 * 2. `export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0` (for `thread`:
 *    `libtsan.so`), then run the tests of `properties/lib/engines/kernels`. The set-up itself must run without LD_PRELOAD.
 */
const sanitizerFlags = ({ INTERNVL_SANITIZE: names = '' }: NodeJS.ProcessEnv): readonly string[] =>
  names === '' ? [] : ['-O1', `-fsanitize=${names}`, '-fno-omit-frame-pointer', '-fno-sanitize-recover=undefined', '-g1']

const sourceFiles = (): readonly string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(cc|h)$/.test(name))
    .sort()

/**
 * Path of the compiled kernels: one file per version of the sources, processor and sanitizer, so that neither changed sources nor a home
 * folder shared between machines ever load the wrong library.
 */
export const kernelsLibrary = (env: NodeJS.ProcessEnv = process.env): string => {
  const hash = createHash('sha256')
  for (const name of sourceFiles()) hash.update(`${name}\n`).update(readFileSync(join(folder, name)))
  const flags = [baseFlags.slice(0, -1), sanitizerFlags(env)]
  hash.update(JSON.stringify([tensorflowVersion, flags, targets, process.platform, process.arch, [...cpuFlags()].sort()]))
  return join(cacheFolder(env), 'kernels', `${hash.digest('hex').slice(0, 16)}.node`)
}

/** Issue of missing kernels: the compiler's error of the last attempt, or a message that none was made. */
export const kernelsIssue = (library: string): Issues => {
  const compilerError = existsSync(`${library}.failed`) ? readFileSync(`${library}.failed`, 'utf8') : ''
  const why = compilerError ? `did not compile (${compilerError})` : 'are not compiled'
  const fix = compilerError ? forceSetupHint : setupHint
  return [issue('NoKernels', `the kernels for this processor ${why}; models run slower without; \`${fix}\``, { fix })]
}

export interface MakeOptions extends ProcessOptions {
  /** Compiles again what exists, or failed before. */
  readonly force?: boolean
  readonly onStart?: () => void
  /** Called after each compiled file, and after linking: `done` of `total` steps. */
  readonly onProgress?: (done: number, total: number) => void
}

/** Runs tasks, at most `limit` at a time; stops at the first error. */
const inParallel = <E>(tasks: readonly TE.TaskEither<E, unknown>[], limit: number): TE.TaskEither<E, void> => {
  let next = 0
  let failed: E.Left<E> | undefined
  const worker = async (): Promise<void> => {
    while (!failed && next < tasks.length) {
      const result = await tasks[next++]!()
      if (E.isLeft(result)) failed = result
    }
  }
  return async () => {
    await Promise.all(Array.from({ length: Math.min(limit, tasks.length) }, worker))
    return failed ?? E.right(undefined)
  }
}

/**
 * Compiles each source to an object on all processors, links the objects, and loads the library beside the addon in a process of its own.
 * Tries the targets in order.
 */
const compile = (
  compiler: Command,
  engine: string,
  plan: Plan,
  out: string,
  { onProgress, ...options }: MakeOptions
): TE.TaskEither<FailedProcess, string> => {
  const sources = sourceFiles().filter((name) => name.endsWith('.cc'))
  const objects = sources.map((name) => join(`${out}.objects`, `${name.replace(/[\\/]/g, '-')}.o`))
  const sanitize = sanitizerFlags(options.env)
  const libraries = plan.libraries.map((name) => join(engine, 'tensorflow', name))
  const load = `require(${JSON.stringify(join(engine, 'tfjs_binding.node'))}); require(${JSON.stringify(out)})`
  const tryLoad = runProcess([process.execPath], ['-e', load], {
    ...options,
    env: { ...options.env, TF_CPP_MIN_LOG_LEVEL: '3', NODE_OPTIONS: '' }
  })
  const total = sources.length + 1
  const forTarget = (target: readonly string[]) => {
    let done = 0
    const progress = () => onProgress?.(++done, total)
    const compileObject = (name: string, i: number) =>
      pipe(
        runProcess(compiler, [...baseFlags, ...sanitize, ...target, '-c', join(folder, name), '-o', objects[i]!], options),
        TE.map(progress)
      )
    const link = [
      '-shared',
      '-pthread',
      ...sanitize,
      ...objects,
      ...libraries,
      `-Wl,-rpath,${join(engine, 'tensorflow')}`,
      '-o',
      out
    ]
    return pipe(
      inParallel(sources.map(compileObject), availableParallelism()),
      TE.chain(() => runProcess(compiler, link, options)),
      TE.chain((linked) => (sanitize.length > 0 ? TE.right(linked) : tryLoad)), // a sanitizer's runtime must be preloaded
      TE.chainFirstIOK(() => progress)
    )
  }
  return async () => {
    await mkdir(`${out}.objects`, { recursive: true })
    const result = await targets.map(forTarget).reduce((first, second) => TE.orElse(() => second)(first))()
    await rm(`${out}.objects`, { recursive: true, force: true })
    return result
  }
}

/**
 * Compiles the C++ kernels against an installed engine into the cache, and publishes the library by a rename: half a minute on two cores, nothing
 * if the library exists. A build for a GPU has no kernels: they run on the CPU. A failure is recorded and not tried again unless forced; models
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
      const publish = async (result: E.Either<FailedProcess, string>): Promise<E.Either<Issues, 'made'>> => {
        if (E.isRight(result)) {
          await rename(staging, library)
          await recordHash(library)
        } else if (!options.signal?.aborted) await writeFile(`${library}.failed`, errorLine(result.left))
        await rm(staging, { force: true })
        return E.bimap(
          () => kernelsIssue(library),
          () => 'made' as const
        )(result)
      }
      return pipe(
        findTool('compiler', options.env),
        TE.chainFirstTaskK(() => () => mkdir(dirname(library), { recursive: true, mode: 0o700 })),
        TE.chain((compiler) => TE.fromTask(compile(compiler, engine, plan, staging, options))),
        TE.chain((result) => () => publish(result))
      )
    })
  )
