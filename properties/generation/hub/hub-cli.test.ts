import { deepEqual, equal, match, ok } from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { demoModel, load } from '../../../generation/checkpoint/load.js'
import { bytesText, hubProgress } from '../../../generation/cli/flags/hub-flags.js'
import { sizeOf } from '../../../generation/hub/hub-cache.js'
import { modelFolder } from '../../../generation/hub/index.js'
import { commitOf, sha256 } from './fake-hub.js'
import { contents, type HubFixture, repo, someFiles, withHub } from './hub-fixture.js'

const weights = someFiles['model.safetensors']!
const bin = fileURLToPath(new URL('../../../generation/bin.js', import.meta.url))

const internvl = ({ hub, cacheDir }: HubFixture, args: readonly string[], env = {}): ChildProcess =>
  spawn(process.execPath, [bin, ...args], {
    env: { ...process.env, HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: cacheDir, HF_TOKEN: 'hf_x', HF_HUB_OFFLINE: '0', ...env },
    stdio: ['ignore', 'pipe', 'pipe']
  })

const finished = async (child: ChildProcess) => {
  const ended = new Promise<number | null>((done) => child.on('close', done))
  const [out, err] = await Promise.all([text(child.stdout!), text(child.stderr!)])
  return { out, err, code: await ended }
}

describe('internvl download', () => {
  it('prints only the folder, resumes a killed download, and fails with one sentence', () =>
    withHub(async (fixture) => {
      const { hub, cacheDir } = fixture
      hub.nextFailure = ({ path }) => (path.endsWith('.safetensors') ? { stallAfter: 12_000 } : undefined)
      const killed = internvl(fixture, ['download', repo])
      const ended = finished(killed)
      const hasPart = async (): Promise<boolean> => {
        const parts = (await readdir(cacheDir, { recursive: true })).filter((name) => name.includes(sha256(weights)))
        const sizes = await Promise.all(parts.map((part) => sizeOf(join(cacheDir, part))))
        return sizes.includes(12_000)
      }
      while (!(await hasPart())) await new Promise((done) => setTimeout(done, 20))
      killed.kill('SIGKILL')
      await ended
      hub.nextFailure = () => undefined
      const { out, err, code } = await finished(internvl(fixture, ['download', repo]))
      equal(code, 0, err)
      equal(out, `${join(cacheDir, 'models--Org--Some-model.v1_0', 'snapshots', commitOf('main'))}\n`)
      match(err, /downloading Org\/Some-model\.v1_0\/model\.safetensors \(20\.0 kB, resuming at 12\.0 kB\)/)
      equal(hub.storeRequests.at(-1)?.range, 'bytes=12000-')
      ok(hub.hubRequests.every(({ token }) => token === 'hf_x'))
      deepEqual((await contents(out.trim()))['model.safetensors'], weights)
      const [offline, missing, wrong] = await Promise.all([
        finished(internvl(fixture, ['download', repo], { HF_HUB_OFFLINE: '1' })),
        finished(internvl(fixture, ['download', 'Org/other'])),
        finished(internvl(fixture, ['download']))
      ])
      equal(offline.out, out)
      match(offline.err, /using the cached commit/)
      deepEqual([missing.code, missing.out, wrong.code], [1, '', 2])
      match(missing.err, /^internvl: Org\/other: .* no such repository\n$/)
    })).timeout(60_000)
})

/** The demo model under a name of the hub. */
const demoFiles = async (): Promise<Record<string, Buffer>> =>
  Object.fromEntries(
    await Promise.all((await readdir(demoModel)).map(async (name) => [name, await readFile(join(demoModel, name))] as const))
  )

describe('commands that read a folder', () => {
  it('inspect and convert take org/name of the hub too, and say what is wrong with a name', () =>
    withHub(async (fixture) => {
      fixture.hub.repos.set('demo/model', { files: await demoFiles() })
      const target = join(fixture.cacheDir, 'converted')
      const inspected = await finished(internvl(fixture, ['inspect', 'demo/model', '--json']))
      equal(inspected.code, 0, inspected.err)
      const { dir, loads } = JSON.parse(inspected.out)
      deepEqual([dir, loads], [join(fixture.cacheDir, 'models--demo--model', 'snapshots', commitOf('main')), true])
      const offline = ['convert', 'demo/model', target, '--layout', 'hf', '--offline']
      const [converted, none] = await Promise.all([
        finished(internvl(fixture, offline)),
        finished(internvl(fixture, ['inspect', 'demo/other']))
      ])
      equal(converted.code, 0, converted.err)
      deepEqual((await contents(target))['config.json'] !== undefined, true)
      deepEqual([none.code, none.out], [1, ''])
      match(none.err, /demo\/other: .* no such repository/)
    })).timeout(60_000)
})

describe('a model of the hub', () => {
  it('loads like its folder, and a local folder of that name has priority', () => {
    const names = ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json', 'model.safetensors']
    return withHub(async ({ hub, cacheDir }) => {
      const files = await demoFiles()
      ok(names.every((name) => name in files))
      hub.repos.set('demo/model', { files })
      const model = await load('demo/model', { endpoint: hub.endpoint, cacheDir, token: false, offline: false })
      equal(model.dir, join(cacheDir, 'models--demo--model', 'snapshots', commitOf('main')))
      model.dispose()
      const asked = hub.hubRequests.length
      const before = process.cwd()
      process.chdir(cacheDir)
      try {
        await mkdir('demo/model', { recursive: true })
        const lines: string[] = []
        const onWarning = (line: string) => void lines.push(line)
        deepEqual(await modelFolder('demo/model', { endpoint: hub.endpoint, revision: 'v1', onWarning })(), E.right('demo/model'))
        equal(lines.length, 1)
      } finally {
        process.chdir(before)
        await rm(join(cacheDir, 'demo'), { recursive: true })
      }
      const missing = await modelFolder('./demo/model')()
      ok(E.isLeft(missing) && missing.left[0]._tag === 'FolderMissing')
      const bad = await modelFolder('internvl3')()
      ok(E.isLeft(bad) && bad.left[0]._tag === 'BadModelName')
      equal(hub.hubRequests.length, asked)
    })
  })
})

describe('the progress of a download', () => {
  const progress = (file: string, done: number, allDone: number) => ({ file, done, total: 100, allDone, allTotal: 200 })

  it('prints lines without a terminal: each file once, each tenth once', async () => {
    const stream = new PassThrough() as unknown as NodeJS.WriteStream & PassThrough
    const { options, end } = hubProgress('a/b', stream)
    for (let i = 0; i <= 100; i++) options.onDownload!(progress('x', i, i))
    for (let i = 0; i <= 100; i++) options.onDownload!(progress('y', i, 100 + i))
    options.onWarning!('a warning')
    end()
    stream.end()
    const lines = (await text(stream)).trimEnd().split('\n')
    equal(lines.filter((line) => line.startsWith('downloading a/b/')).length, 2)
    equal(lines.filter((line) => line.startsWith('downloaded ')).length, 10)
    equal(lines.at(-2), 'downloaded 200 B of 200 B')
    equal(lines.at(-1), 'a warning')
  })

  it('shows bars on a terminal, and leaves no signal handler', async () => {
    const stream = Object.assign(new PassThrough(), { isTTY: true, columns: 100 }) as unknown as NodeJS.WriteStream & PassThrough
    const before = process.listenerCount('SIGINT')
    const { options, end } = hubProgress('a/b', stream)
    options.onDownload!(progress('x', 0, 0))
    options.onDownload!(progress('x', 50, 50))
    equal(process.listenerCount('SIGINT'), before + 1)
    await new Promise((done) => setTimeout(done, 300)) // the bars are redrawn ten times a second
    end()
    equal(process.listenerCount('SIGINT'), before)
    match(String(stream.read()), /a\/b .*50 B of 200 B[\s\S]*x .*50 B of 100 B/)
  })

  it('formats bytes in decimal units', () =>
    deepEqual([0, 999, 1000, 4230, 1_876_000_000].map(bytesText), ['0 B', '999 B', '1.0 kB', '4.2 kB', '1.9 GB']))
})
