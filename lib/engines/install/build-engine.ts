import { mkdir, rm, statfs } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, invalid, issue, whenValid } from '../../error.js'
import { checkAddon, compileAddon } from './compile-addon.js'
import { addonVersion, type EngineManifest, isCurrent, listFiles, manifestFormat, writeManifest } from './engine-folder.js'
import { hashFile, removeForeignWrite } from './file-trust.js'
import type { Plan } from './setup-plan.js'
import { publish, type Staging } from './staging.js'
import { findToolchain, type Toolchain } from './toolchain.js'
import { nvidiaMembers, readCudaRequirements, tensorflowMembers, unpack } from './unpack.js'
import { checkWheels, type OnBytes, pipDownload } from './wheel.js'

/** Progress of a set-up. */
export interface SetupProgress {
  readonly step: 'wait' | 'download' | 'unpack' | 'compile' | 'check'
  /** The file, package or build that the step works on. */
  readonly item: string
  /** Bytes, or for `compile` source files; both numbers are 0 where the total is not known. */
  readonly done: number
  readonly total: number
}

/** One engine to build. */
export interface BuildJob {
  readonly plan: Plan
  /** Path of the finished engine folder. */
  readonly engine: string
  readonly staging: Staging
  readonly env: NodeJS.ProcessEnv
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: SetupProgress) => void) | undefined
  readonly force?: boolean | undefined
  readonly checkAddon?: typeof checkAddon
}

/** The folder that becomes the engine folder. */
const outputFolder = ({ staging }: BuildJob): string => join(staging.path, 'engine')

/** Announces a step. Returns a function that reports its progress. */
const startStep = ({ onProgress }: BuildJob, name: SetupProgress['step'], item: string): OnBytes => {
  onProgress?.({ step: name, item, done: 0, total: 0 })
  return (done, total) => onProgress?.({ step: name, item, done, total })
}

/** Disk space for the wheels and their contents: TensorFlow's wheel grows threefold when unpacked, NVIDIA's by half; the rest is reserve. */
const checkDiskSpace =
  ({ plan, staging }: BuildJob): TE.TaskEither<Issues, void> =>
  async () => {
    const needed = 4.5 * plan.wheel.bytes + 3 * plan.nvidiaBytes
    const { bavail, bsize } = await statfs(staging.path)
    const free = bavail * bsize
    const [need, have] = [needed, free].map((bytes) => `${(bytes / 1e9).toFixed(1)} GB`)
    const message = `${dirname(staging.path)}: the set-up needs ${need} of disk, ${have} is free; free some, or name a roomier folder in INTERNVL_CACHE`
    return free >= needed ? E.right(undefined) : invalid('DiskFull', message, { needed, free })
  }

/** Downloads wheels into a subfolder of the staging folder. Returns their paths. */
const download = (
  job: BuildJob,
  { pip }: Toolchain,
  names: readonly string[],
  title: string,
  tags: readonly string[],
  bytes: number
) => {
  const { staging, env, signal } = job
  const folder = join(staging.path, title.replace(/\W/g, '_'))
  return pipDownload(names, tags, bytes, { pip, folder, env, signal, onBytes: startStep(job, 'download', title) })
}

/** Name and version in a wheel's file name: `tensorflow_cpu 2.18.0`. */
const wheelTitle = (path: string): string => basename(path, '.whl').split('-').slice(0, 2).join(' ')

/** Unpacks the members of a wheel that match `members`. */
const unpackInto =
  (job: BuildJob, { python }: Toolchain, members: readonly string[]) =>
  (path: string) =>
    unpack(python, path, outputFolder(job), members, job, startStep(job, 'unpack', wheelTitle(path)))

/** Downloads TensorFlow's wheel, checks its hash and unpacks it. */
const fetchTensorflow = (job: BuildJob, tools: Toolchain): TE.TaskEither<Issues, string> => {
  const { name, version, tag, bytes, sha256 } = job.plan.wheel
  const requirement = `${name}==${version}`
  return pipe(
    download(job, tools, [requirement], requirement, [tag], bytes),
    TE.chain(checkWheels(`${name} ${version}`, [sha256])),
    TE.map(([path = requirement]) => path),
    TE.chainFirst(unpackInto(job, tools, tensorflowMembers))
  )
}

/** The requirements themselves where the plan pins a hash for each. */
const requirePins =
  ({ nvidiaWheels }: Plan) =>
  (names: readonly string[]): E.Either<Issues, readonly string[]> => {
    const unpinned = names.filter((name) => nvidiaWheels[name] === undefined)
    const report = (name: string) => issue('UnpinnedWheel', `${name}: no SHA-256 is pinned for this wheel`, { name })
    return whenValid(unpinned.map(report), () => names)
  }

/** For CUDA: downloads, checks and unpacks the NVIDIA wheels that TensorFlow's metadata names. For the CPU: none. */
const fetchNvidiaWheels = (job: BuildJob, tools: Toolchain, tensorflow: string): TE.TaskEither<Issues, readonly string[]> => {
  const { variant, nvidiaWheels, nvidiaTags, nvidiaBytes } = job.plan
  if (variant === 'cpu') return TE.right([])
  return pipe(
    readCudaRequirements(tools.python, tensorflow, job),
    TE.chainEitherK(requirePins(job.plan)),
    TE.chain((names) => download(job, tools, names, `${names.length} NVIDIA wheels`, nvidiaTags, nvidiaBytes)),
    TE.chain(checkWheels('NVIDIA', Object.values(nvidiaWheels))),
    TE.chainFirst(TE.traverseSeqArray(unpackInto(job, tools, nvidiaMembers)))
  )
}

const describeWheel = async (path: string): Promise<EngineManifest['wheels'][number]> => ({
  file: basename(path),
  sha256: await hashFile(path)
})

/** Fetches all libraries of the plan. Returns the wheels that contained the libraries. */
const fetchLibraries = (job: BuildJob, tools: Toolchain): TE.TaskEither<Issues, EngineManifest['wheels']> =>
  pipe(
    fetchTensorflow(job, tools),
    TE.bindTo('tensorflow'),
    TE.bind('nvidia', ({ tensorflow }) => fetchNvidiaWheels(job, tools, tensorflow)),
    TE.chainTaskK(
      ({ tensorflow, nvidia }) =>
        () =>
          Promise.all([tensorflow, ...nvidia].map(describeWheel))
    )
  )

/** Removes the headers, records sizes and hashes in the manifest, and renames the folder to the engine folder. */
const publishEngine = (job: BuildJob, wheels: EngineManifest['wheels'], compiler: string) => async (): Promise<void> => {
  const { plan, engine, staging, force } = job
  const output = outputFolder(job)
  startStep(job, 'check', plan.folder)
  await rm(join(output, 'tensorflow', 'include'), { recursive: true, force: true })
  await removeForeignWrite(output)
  const files = await listFiles(output)
  const { variant, wheel } = plan
  await writeManifest(output, {
    ...{ format: manifestFormat, addon: addonVersion, tensorflow: wheel.version },
    ...{ variant, wheels, compiler, files }
  })
  await publish(output, engine, staging, async () => !force && (await isCurrent(engine)))
}

/** Builds the engine of a plan: download, unpack, compile, check, publish. All missing tools are reported before the first download. */
export const buildEngine = (job: BuildJob): TE.TaskEither<Issues, void> => {
  const { plan, staging, env, signal } = job
  const output = outputFolder(job)
  return pipe(
    findToolchain(env),
    TE.chainFirst(() => checkDiskSpace(job)),
    TE.chainFirstTaskK(() => () => mkdir(output, { recursive: true, mode: 0o700 })),
    TE.bindTo('tools'),
    TE.bind('wheels', ({ tools }) => fetchLibraries(job, tools)),
    TE.chainFirst(({ tools }) => {
      startStep(job, 'compile', 'the addon of tfjs-node')
      return compileAddon(tools.compiler, output, staging.path, plan.libraries, { env, signal })
    }),
    TE.chainFirst(() => (job.checkAddon ?? checkAddon)(join(output, 'tfjs_binding.node'), { env, signal })),
    TE.chainTaskK(({ tools, wheels }) => publishEngine(job, wheels, tools.compiler.join(' ')))
  )
}
