import { deepEqual, equal, match, ok } from 'node:assert/strict'
import { mkdir, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { commitOf, gitHash, sha256 } from './fake-hub.js'
import { bytesOf, contents, left, needed, repo, right, someFiles, withHub } from './hub-fixture.js'

const storeOf = (cache: string) => join(cache, 'models--Org--Some-model.v1_0')
const index = (...shards: readonly string[]) =>
  Buffer.from(JSON.stringify({ weight_map: Object.fromEntries(shards.map((name, i) => [`layer.${i}.weight`, name])) }))

describe('a snapshot', () => {
  it('has the complete files that loading needs, and no others', () =>
    withHub(async ({ download }) => {
      const { folder, commit } = right(await download())
      equal(commit, commitOf('main'))
      deepEqual(await contents(folder), Object.fromEntries(needed.map((name) => [name, someFiles[name]])))
    }))

  it('has the layout of the Python cache: blobs by hash, relative links, the commit of the branch', () =>
    withHub(async ({ download, cacheDir }) => {
      const { folder } = right(await download())
      const store = storeOf(cacheDir)
      equal(folder, join(store, 'snapshots', commitOf('main')))
      equal(await readFile(join(store, 'refs', 'main'), 'utf8'), commitOf('main'))
      for (const name of needed) {
        const hash = (name.endsWith('.safetensors') ? sha256 : gitHash)(someFiles[name]!)
        equal(await readlink(join(folder, name)), `../../blobs/${hash}`)
      }
      equal((await readdir(join(store, 'blobs'))).length, needed.length)
    }))

  it('is downloaded once: the second time only the commit and its file list are requested', () =>
    withHub(async ({ download, hub }) => {
      const first = right(await download())
      const [sent, asked] = [hub.sent, hub.hubRequests.length]
      deepEqual(right(await download()), first)
      equal(hub.sent, sent)
      ok(hub.hubRequests.slice(asked).every(({ path }) => path.startsWith('/api/')))
    }))

  it('reuses unchanged files of an earlier commit', () =>
    withHub(async ({ download, hub }) => {
      right(await download())
      const changed = { ...someFiles, 'config.json': Buffer.from('{"changed":true}') }
      hub.repos.set(repo, { files: changed, revisions: { main: commitOf('later') } })
      const sent = hub.sent
      const { folder, commit } = right(await download())
      equal(commit, commitOf('later'))
      equal(hub.sent - sent, changed['config.json'].length)
      deepEqual((await contents(folder))['config.json'], changed['config.json'])
    }))

  it('is of a branch, a tag, a pull request or a commit', () =>
    withHub(
      async ({ download, cacheDir }) => {
        for (const revision of ['v1.0', 'refs/pr/7', commitOf('main'), commitOf('tag')]) right(await download({ revision }))
        equal(await readFile(join(storeOf(cacheDir), 'refs/refs/pr/7'), 'utf8'), commitOf('pr'))
        deepEqual((await readdir(join(storeOf(cacheDir), 'snapshots'))).sort(), ['main', 'tag', 'pr'].map(commitOf).sort())
        deepEqual((await readdir(join(storeOf(cacheDir), 'refs'))).sort(), ['refs', 'v1.0'])
      },
      { files: someFiles, revisions: { 'v1.0': commitOf('tag'), 'refs/pr/7': commitOf('pr') } }
    ))

  it('has the shards that the index names, no others', () => {
    const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
    const files = {
      'config.json': Buffer.from('{}'),
      'model.safetensors.index.json': index(...shards, shards[0]!),
      [shards[0]!]: bytesOf(900),
      [shards[1]!]: bytesOf(800, 2),
      'consolidated.safetensors': bytesOf(1700)
    }
    return withHub(
      async ({ download }) => {
        const { folder } = right(await download())
        deepEqual(Object.keys(await contents(folder)).sort(), ['config.json', ...shards, 'model.safetensors.index.json'].sort())
      },
      { files }
    )
  })

  it('reports all missing files of a repository without a checkpoint', async () => {
    await withHub(
      async ({ download, hub }) => {
        const issues = left(await download())
        deepEqual(
          issues.map(({ _tag }) => _tag),
          ['HubNoCheckpoint', 'HubNoCheckpoint']
        )
        match(issues[0].message, /no config\.json/)
        match(issues[1]!.message, /but pytorch_model\.bin/)
        equal(hub.sent, 0)
      },
      { files: { 'pytorch_model.bin': bytesOf(100) } }
    )
    const bad = ['../../../secret.safetensors', 'gone.safetensors']
    await withHub(
      async ({ download, cacheDir }) => {
        const issues = left(await download())
        ok(bad.every((name) => issues.some(({ message }) => message.includes(JSON.stringify(name)))))
        deepEqual(await readdir(cacheDir), ['models--Org--Some-model.v1_0'])
      },
      { files: { 'config.json': Buffer.from('{}'), 'model.safetensors.index.json': index(...bad) } }
    )
  })

  it('reports progress of each file and of all files', () =>
    withHub(async ({ download }) => {
      const ends = new Map<string, number>()
      let last = { allDone: 0, allTotal: -1 }
      let before = 0
      const onDownload = (p: { file: string; done: number; total: number; allDone: number; allTotal: number }) => {
        ok(p.done <= p.total && p.allDone >= before && p.allDone <= p.allTotal)
        before = p.allDone
        ends.set(p.file, p.total - p.done)
        last = p
      }
      right(await download({ onDownload }))
      deepEqual([...ends.keys()].sort(), [...needed].sort())
      ok([...ends.values()].every((rest) => rest === 0))
      equal(
        last.allTotal,
        needed.reduce((n, name) => n + someFiles[name]!.length, 0)
      )
      equal(last.allDone, last.allTotal)
    }))

  it('is right with several downloads at once', () =>
    withHub(async ({ download, cacheDir }) => {
      const all = (await Promise.all([download(), download(), download()])).map(right)
      equal(new Set(all.map(({ folder }) => folder)).size, 1)
      deepEqual((await contents(all[0]!.folder))['model.safetensors'], someFiles['model.safetensors'])
      const blobs = await readdir(join(storeOf(cacheDir), 'blobs'))
      ok(blobs.every((name) => !name.endsWith('.incomplete')))
    }))
})

describe('without the hub', () => {
  const offline = { offline: true } as const

  /** A cache as Python's huggingface_hub writes one. */
  const cacheByHand = async (cache: string, names: readonly string[], revision = 'main'): Promise<string> => {
    const store = storeOf(cache)
    const folder = join(store, 'snapshots', commitOf('by hand'))
    for (const path of [folder, join(store, 'blobs'), join(store, 'refs')]) await mkdir(path, { recursive: true })
    await writeFile(join(store, 'refs', revision), commitOf('by hand'))
    for (const name of names) {
      await writeFile(join(store, 'blobs', gitHash(someFiles[name]!)), someFiles[name]!)
      await symlink(`../../blobs/${gitHash(someFiles[name]!)}`, join(folder, name))
    }
    return folder
  }

  it('the cache is used with a warning, without a request', () =>
    withHub(async ({ download, cacheDir, hub, warnings }) => {
      const folder = await cacheByHand(cacheDir, needed)
      equal(right(await download(offline)).folder, folder)
      equal(right(await download({ ...offline, revision: commitOf('by hand') })).folder, folder)
      equal(hub.hubRequests.length, 0)
      match(warnings[0]!, /offline.*using the cached commit \w{7} of Org\/Some-model\.v1_0/)
    }))

  it('missing files are named with the folder of the cache', () =>
    withHub(async ({ download, cacheDir, hub }) => {
      const [none] = left(await download(offline))
      equal(none._tag, 'NotCached')
      ok(none.message.includes(cacheDir))
      await cacheByHand(cacheDir, ['tokenizer.json'])
      match(left(await download(offline))[0].message, /lacks config\.json, model\.safetensors/)
      match(left(await download({ ...offline, revision: 'other' }))[0].message, /does not have it/)
      equal(hub.hubRequests.length, 0)
    }))

  it('without a network the cache is used at once', () =>
    withHub(async ({ download, cacheDir, hub, warnings }) => {
      const { folder } = right(await download())
      await hub.close()
      right(await download()) // connections that were kept open break only now
      const begun = performance.now()
      equal(right(await download({ backoff: 1000 })).folder, folder)
      ok(performance.now() - begun < 900)
      match(warnings.at(-1)!, /cannot be reached \(ECONNREFUSED\).*using the cached commit/)
      await rm(storeOf(cacheDir), { recursive: true })
      const [none] = left(await download())
      match(none.message, /cannot be reached.*the cache at .* does not have it/)
    }))

  it('a hub that is down, too busy or refuses the token leaves the cache', () =>
    withHub(async ({ download, hub }) => {
      const { folder } = right(await download())
      for (const status of [500, 429, 401]) {
        hub.nextFailure = () => ({ status })
        equal(right(await download()).folder, folder)
      }
    }))

  it('a broken download does not hide the previous commit', () =>
    withHub(async ({ download, hub }) => {
      const { folder } = right(await download())
      const files = { ...someFiles, 'model.safetensors': bytesOf(30_000, 7) }
      hub.repos.set(repo, { files, revisions: { main: commitOf('later') } })
      hub.nextFailure = ({ path }) => (path.endsWith('model.safetensors') ? { status: 404 } : undefined)
      equal(left(await download())[0]._tag, 'HubFileNotFound')
      equal(right(await download(offline)).folder, folder)
    }))
})

describe('a name', () => {
  it('or revision that could point outside of the cache is refused without a request', () =>
    withHub(({ download, hub }) =>
      fc.assert(
        fc.asyncProperty(
          fc.constantFrom('..', '../x', 'a/../../x', '/etc', 'a//b', '', 'a b', '.git', 'x/..', 'a\\b', 'a\0b'),
          fc.constantFrom('a/b/c', '../b', 'a/..', 'a/b.git', 'a--b/c', '-a/b', 'a', 'a/', 'a/b\n', `a/${'b'.repeat(96)}`),
          async (revision, name) => {
            deepEqual(
              left(await download({ revision }, name)).map(({ _tag }) => _tag),
              ['BadModelName', 'BadRevision']
            )
            equal(hub.hubRequests.length, 0)
          }
        )
      )
    ))
})
