import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { HubOptions } from '../../../generation/hub/index.js'
import { type Snapshot, snapshotDownload } from '../../../generation/hub/snapshot.js'
import type { Issues } from '../../../lib/error.js'
import { type FakeHub, type FakeRepo, startHub } from './fake-hub.js'

// a busy machine is slow: longer timeouts
process.env.HF_HUB_DOWNLOAD_TIMEOUT ??= '100'

export const repo = 'Org/Some-model.v1_0'

/** Bytes that differ at neighbouring offsets, so that a chunk at a wrong offset is detected. */
export const bytesOf = (length: number, seed = 1): Buffer =>
  Buffer.from(Array.from({ length }, (_, i) => (i * i + i * seed) % 251))

/** Files of a repository: needed and unneeded ones. */
export const someFiles: FakeRepo['files'] = {
  'README.md': Buffer.from('# a model'),
  'config.json': Buffer.from('{"model_type":"internvl"}'),
  'generation_config.json': Buffer.from('{}'),
  'tokenizer.json': bytesOf(5000),
  'tokenizer_config.json': Buffer.from('{"a":1}'),
  'chat_template.jinja': Buffer.from('{{ messages }}'),
  'video_preprocessor_config.json': Buffer.from('{"b":1}'),
  'merges.txt': Buffer.from(''),
  'model.safetensors': bytesOf(20_000, 3),
  'pytorch_model.bin': bytesOf(20_000, 5),
  'modeling_internvl_chat.py': Buffer.from('print()'),
  'model.onnx': bytesOf(10)
}
export const needed = Object.keys(someFiles).filter((name) => !/README|\.bin$|\.py$|\.onnx$/.test(name))

/** A hub with one repository, an empty cache, and downloads with a backoff of 1 ms. */
export interface HubFixture {
  readonly hub: FakeHub
  readonly cacheDir: string
  readonly warnings: string[]
  readonly download: (options?: HubOptions, name?: string) => Promise<E.Either<Issues, Snapshot>>
}

/** Runs `use` with a new fixture. */
export const withHub = async (
  use: (fixture: HubFixture) => Promise<void>,
  files: FakeRepo = { files: someFiles }
): Promise<void> => {
  const [hub, cacheDir] = [await startHub(), await mkdtemp(join(tmpdir(), 'hub-'))]
  hub.repos.set(repo, files)
  const warnings: string[] = []
  const defaults = { endpoint: hub.endpoint, cacheDir, token: false, backoff: 1, offline: false } as const
  const download: HubFixture['download'] = (options = {}, name = repo) => {
    const onDownload: HubOptions['onDownload'] = (progress) => {
      if (progress.file === 'model.safetensors') hub.arrived = progress.done
      options.onDownload?.(progress)
    }
    return snapshotDownload(name, { ...defaults, onWarning: (line) => warnings.push(line), ...options, onDownload })()
  }
  try {
    await use({ hub, cacheDir, warnings, download })
  } finally {
    await hub.close()
    await rm(cacheDir, { recursive: true, force: true })
  }
}

/** The snapshot; throws an error with the messages of a failed download. */
export const right = (result: E.Either<Issues, Snapshot>): Snapshot => {
  if (E.isLeft(result)) throw new Error(result.left.map(({ message }) => message).join('\n'))
  return result.right
}

/** The errors; throws if the download succeeded. */
export const left = (result: E.Either<Issues, Snapshot>): Issues => {
  if (E.isRight(result)) throw new Error(`no error, but ${result.right.folder}`)
  return result.left
}

/** Names and bytes of a folder's files. */
export const contents = async (folder: string): Promise<Readonly<Record<string, Buffer>>> =>
  Object.fromEntries(
    await Promise.all((await readdir(folder)).map(async (name) => [name, await readFile(join(folder, name))] as const))
  )
