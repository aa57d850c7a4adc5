import { mkdir, rm, statfs, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, issue } from '../../error.js'
import { compileAddon, tryAddon } from './compile-addon.js'
import { type EngineManifest, hashFile, listFiles, manifestFormat, verifyEngine } from './engine-folder.js'
import type { Plan } from './setup-plan.js'
import { publish, type Staging } from './staging.js'
import { findToolchain, type Toolchain } from './toolchain.js'
import { nvidiaMembers, readCudaRequirements, tensorflowMembers, unpack } from './unpack.js'
import { checkWheel, type OnBytes, pipDownload } from './wheel.js'

/** How far a set-up is: bytes done and in all, both 0 where they are not known. */
export interface SetupProgress {
  readonly step: 'wait' | 'download' | 'unpack' | 'compile' | 'check'
  readonly what: string
  readonly done: number
  readonly total: number
}

/** One engine to make. */
export interface Job {
  readonly plan: Plan
  /** The finished folder to be. */
  readonly engine: string
  readonly staging: Staging
  readonly env: NodeJS.ProcessEnv
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: SetupProgress) => void) | undefined
  readonly force?: boolean | undefined
  readonly tryAddon?: typeof tryAddon
}

/** The engine's folder while it is made. */
const madeIn = ({ staging }: Job): string => join(staging.path, 'engine')

/** Announces a step; what it returns tells how far the step is. */
const step = ({ onProgress }: Job, name: SetupProgress['step'], what: string): OnBytes => {
  onProgress?.({ step: name, what, done: 0, total: 0 })
  return (done, total) => onProgress?.({ step: name, what, done, total })
}

/** Disk that it takes while it is made: the wheels, what is unpacked of them (TensorFlow's grows threefold, NVIDIA's by half), and some air. */
const enoughSpace =
  ({ plan, staging }: Job): TE.TaskEither<Issues, void> =>
  async () => {
    const needed = 4.5 * plan.wheel.bytes + 3 * plan.companionBytes
    const { bavail, bsize } = await statfs(staging.path)
    const [need, free] = [needed, bavail * bsize].map((bytes) => `${(bytes / 1e9).toFixed(1)} GB`)
    const message = `${dirname(staging.path)}: the set-up needs ${need} of disk, ${free} is free; free some, or name a roomier folder in INTERNVL_CACHE`
    return bavail * bsize >= needed ? E.right(undefined) : E.left([issue('DiskFull', message, { needed, free: bavail * bsize })])
  }

/** Downloads wheels into a folder of their own; their paths. */
const download = (
  job: Job,
  { pip }: Toolchain,
  names: readonly string[],
  what: string,
  tags: readonly string[],
  bytes: number
) => {
  const { staging, env, signal } = job
  const folder = join(staging.path, what.replace(/\W/g, '_'))
  return pipDownload(names, tags, bytes, { pip, folder, env, signal, onBytes: step(job, 'download', what) })
}

/** Unpacks what is needed of a wheel. */
const open =
  (job: Job, { python }: Toolchain, members: readonly string[]) =>
  (path: string) =>
    unpack(python, path, madeIn(job), members, job, step(job, 'unpack', basename(path)))

/** TensorFlow's own wheel, checked and unpacked. */
const fetchTensorflow = (job: Job, tools: Toolchain): TE.TaskEither<Issues, string> => {
  const { wheel } = job.plan
  const spec = `${wheel.name}==${wheel.version}`
  return pipe(
    download(job, tools, [spec], spec, [wheel.tag], wheel.bytes),
    TE.chain(([path = spec]) => checkWheel(wheel)(path)),
    TE.chainFirst(open(job, tools, tensorflowMembers))
  )
}

/** For CUDA, the NVIDIA wheels that the metadata of TensorFlow's wheel names, unpacked; else none. */
const fetchCompanions = (job: Job, tools: Toolchain, tensorflow: string): TE.TaskEither<Issues, readonly string[]> => {
  const { variant, companionTags, companionBytes } = job.plan
  if (variant === 'cpu') return TE.right([])
  return pipe(
    readCudaRequirements(tools.python, tensorflow, job),
    TE.chain((names) => download(job, tools, names, `${names.length} NVIDIA wheels`, companionTags, companionBytes)),
    TE.chainFirst(TE.traverseSeqArray(open(job, tools, nvidiaMembers)))
  )
}

/** All libraries of the plan, in the engine's folder; the wheels that they came from. */
const fetchLibraries = (job: Job, tools: Toolchain): TE.TaskEither<Issues, EngineManifest['wheels']> =>
  pipe(
    fetchTensorflow(job, tools),
    TE.bindTo('own'),
    TE.bind('others', ({ own }) => fetchCompanions(job, tools, own)),
    TE.chainTaskK(
      ({ own, others }) =>
        () =>
          Promise.all([own, ...others].map(async (path) => ({ file: basename(path), sha256: await hashFile(path) })))
    )
  )

/** Leaves only what runs, writes down its sizes and hashes, and gives the folder its name. */
const finish = (job: Job, wheels: EngineManifest['wheels'], compiler: string) => async (): Promise<void> => {
  const { plan, engine, staging, force } = job
  const made = madeIn(job)
  step(job, 'check', plan.folder)
  await rm(join(made, 'tensorflow', 'include'), { recursive: true, force: true })
  const files = await listFiles(made)
  const manifest: EngineManifest = {
    format: manifestFormat,
    tensorflow: plan.wheel.version,
    variant: plan.variant,
    wheels,
    compiler,
    files
  }
  await writeFile(join(made, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`)
  await publish(made, engine, staging, async () => !force && E.isRight(await verifyEngine(engine)))
}

/** Makes the engine of a plan, from download to name. All missing tools are reported, before anything is downloaded. */
export const makeEngine = (job: Job): TE.TaskEither<Issues, void> => {
  const { plan, staging, env, signal } = job
  const made = madeIn(job)
  return pipe(
    findToolchain(env),
    TE.chainFirst(() => enoughSpace(job)),
    TE.chainFirstTaskK(() => () => mkdir(made, { recursive: true })),
    TE.bindTo('tools'),
    TE.bind('wheels', ({ tools }) => fetchLibraries(job, tools)),
    TE.chainFirst(({ tools }) => {
      step(job, 'compile', 'the addon of tfjs-node')
      return compileAddon(tools.compiler, made, staging.path, plan.libraries, { env, signal })
    }),
    TE.chainFirst(() => (job.tryAddon ?? tryAddon)(join(made, 'tfjs_binding.node'), { env, signal })),
    TE.chainTaskK(({ tools, wheels }) => finish(job, wheels, tools.compiler.join(' ')))
  )
}
