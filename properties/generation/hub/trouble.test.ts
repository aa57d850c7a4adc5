import { deepEqual, equal, match, ok, rejects } from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { maxAttempts } from '../../../generation/hub/hub-client.js'
import { type HubFailure, sha256 } from './fake-hub.js'
import { bytesOf, contents, type HubFixture, left, right, someFiles, withHub } from './hub-fixture.js'

const weights = someFiles['model.safetensors']!
const small = { files: { 'config.json': Buffer.from('{}'), 'model.safetensors': weights } }
const blobs = ({ cacheDir }: HubFixture) => join(cacheDir, 'models--Org--Some-model.v1_0', 'blobs')

/** Partial file of the weights as a killed process leaves it; no process has the id in its name. */
const partialFile = (fixture: HubFixture) =>
  join(blobs(fixture), `${sha256(weights)}.${hostname().replace(/\W/g, '_')}-${2 ** 22 - 1}-1.incomplete`)

/** Makes the first requests to the store of large files fail; later requests and requests to the hub succeed. */
const failFirst = ({ hub }: HubFixture, ...failures: readonly HubFailure[]): void => {
  hub.nextFailure = (asked) => (hub.storeRequests.at(-1) === asked ? failures[hub.storeRequests.length - 1] : undefined)
}

/** First error when every request to the hub has this failure. */
const errorWhenAll = async (fixture: HubFixture, failure: HubFailure, token: string | false = false) => {
  fixture.hub.nextFailure = () => failure
  const [issue] = left(await fixture.download({ token }))
  return issue
}

describe('a broken connection', () => {
  it('is resumed where it broke, at any byte and any number of times', () =>
    fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 9000 }), { maxLength: 6 }), fc.boolean(), (cuts, noRange) =>
        withHub(async (fixture) => {
          const { hub, download } = fixture
          failFirst(fixture, ...cuts.map((cutAfter) => ({ cutAfter })), ...(noRange ? [{ noRange }] : []))
          const { folder } = right(await download())
          deepEqual((await contents(folder))['model.safetensors'], weights)
          const begins = hub.storeRequests.map(({ range }) => Number(/\d+/.exec(range ?? '0')))
          // a byte that arrived is never requested again, and no byte is left out
          const most = (i: number) => begins[i]! + (cuts[i] ?? weights.length)
          ok(begins.every((begin, i) => i === 0 || (begin >= begins[i - 1]! && begin <= most(i - 1))))
        }, small)
      ),
      {
        numRuns: 25,
        examples: [
          [[0, 0, 0, 0, 100], false],
          [[100, 9000, 9000, 9000], false],
          [[8000], true]
        ]
      }
    ))

  it('without progress fails after a few attempts, and the downloaded bytes are kept for the next call', () =>
    withHub(async (fixture) => {
      const { hub, download } = fixture
      hub.nextFailure = ({ path, range }) =>
        path.endsWith('.safetensors') ? { cutAfter: range === undefined ? 5000 : 0 } : undefined
      const [issue] = left(await download())
      equal(issue._tag, 'NotCached')
      match(issue.message, /model\.safetensors: the hub at .* cannot be reached/)
      // a connection that breaks before its answer has begun is tried again within an attempt
      ok(
        hub.storeRequests.length > maxAttempts && hub.storeRequests.length <= 1 + maxAttempts ** 2,
        `${hub.storeRequests.length} requests`
      )
      hub.nextFailure = () => undefined
      right(await download())
      equal(hub.storeRequests.at(-1)?.range, 'bytes=5000-')
    }, small))

  it('without data for a time is ended and retried', () =>
    withHub(async (fixture) => {
      failFirst(fixture, { stallAfter: 7000 })
      const before = process.env.HF_HUB_DOWNLOAD_TIMEOUT
      process.env.HF_HUB_DOWNLOAD_TIMEOUT = '1'
      try {
        right(await fixture.download())
      } finally {
        if (before === undefined) delete process.env.HF_HUB_DOWNLOAD_TIMEOUT
        else process.env.HF_HUB_DOWNLOAD_TIMEOUT = before
      }
      deepEqual(
        fixture.hub.storeRequests.map(({ range }) => range),
        [undefined, 'bytes=7000-']
      )
    }, small))

  it('by an abort signal rejects with the reason; the next download resumes', () =>
    withHub(async (fixture) => {
      const stop = new AbortController()
      failFirst(fixture, { stallAfter: 6000 })
      const onDownload = ({ done }: { done: number }) => void (done === 6000 && stop.abort(new Error('enough')))
      await rejects(fixture.download({ signal: stop.signal, onDownload }), /enough/)
      right(await fixture.download())
      equal(fixture.hub.storeRequests.at(-1)?.range, 'bytes=6000-')
    }, small))
})

describe('bytes that differ from the listing of the hub', () => {
  it('are deleted: a file of another hash or length never appears under its name', () =>
    withHub(async (fixture) => {
      for (const [failure, tag] of [
        [{ flipBits: true }, 'HubWrongHash'],
        [{ surplus: true }, 'HubWrongSize']
      ] as const) {
        fixture.hub.nextFailure = ({ path }) => (path.endsWith('.safetensors') ? failure : undefined)
        const [issue] = left(await fixture.download())
        equal(issue._tag, tag)
        match(issue.message, /model\.safetensors: .*the download was deleted/)
        ok((await readdir(blobs(fixture))).every((name) => !name.startsWith(sha256(weights))))
      }
    }, small))

  it('at the start of a partial download cost a second download, not the call', () =>
    withHub(async (fixture) => {
      await mkdir(blobs(fixture), { recursive: true })
      await writeFile(partialFile(fixture), bytesOf(4000, 99))
      const { folder } = right(await fixture.download())
      deepEqual(
        fixture.hub.storeRequests.map(({ range }) => range),
        ['bytes=4000-', undefined]
      )
      deepEqual((await contents(folder))['model.safetensors'], weights)
    }, small))
})

describe('a full disk', () => {
  it('is an error before the first byte if the hub lists more bytes than are free', () =>
    withHub(async (fixture) => {
      const size = 2 ** 52
      const sha = 'a'.repeat(64)
      const tree = ['config.json', 'model.safetensors'].map((path) => ({ type: 'file', path, size, oid: sha }))
      fixture.hub.nextFailure = ({ path }) => (path.includes('/tree/') ? { status: 200, body: JSON.stringify(tree) } : undefined)
      const [issue] = left(await fixture.download())
      equal(issue._tag, 'DiskFull')
      match(issue.message, /needs \d+ MB, \d+ MB are free/)
      equal(fixture.hub.sent, 0)
    }, small))

  it('is an error that names the folder to change', function () {
    if (process.platform !== 'linux') return this.skip()
    return withHub(async (fixture) => {
      await mkdir(blobs(fixture), { recursive: true })
      await symlink('/dev/full', partialFile(fixture))
      const [issue] = left(await fixture.download())
      equal(issue._tag, 'DiskFull')
      match(issue.message, /ENOSPC.*HF_HUB_CACHE/)
    }, small)
  })

  it('or a cache that cannot be created is an error, not a crash', () =>
    withHub(async (fixture) => {
      const file = join(fixture.cacheDir, 'file')
      await writeFile(file, '')
      const [issue] = left(await fixture.download({ cacheDir: join(file, 'hub') }))
      equal(issue._tag, 'CacheUnwritable')
      ok(issue.message.includes(file))
    }, small))
})

describe('a request that the hub refuses', () => {
  it('gives one sentence that says what to do', () =>
    withHub(async (fixture) => {
      const gated = { 'x-error-code': 'GatedRepo', 'x-error-message': 'Access is restricted' }
      const cases: readonly [HubFailure, string | false, string, RegExp][] = [
        [{ status: 401 }, false, 'HubForbidden', /private, gated, or does not exist.*set HF_TOKEN/],
        [{ status: 401, headers: gated }, false, 'HubForbidden', /is gated; request access at http/],
        [{ status: 401 }, 'hf_wrong', 'HubForbidden', /the token from the token option is not valid/],
        [{ status: 403, headers: gated }, 'hf_x', 'HubForbidden', /Access is restricted.*has no access.*request access/],
        [{ status: 404, headers: { 'x-error-code': 'RepoNotFound' } }, 'hf_x', 'HubRepoNotFound', /no such repository$/],
        [{ status: 404 }, false, 'HubRepoNotFound', /no local folder with this name.*or no revision main/],
        [{ status: 418 }, false, 'HubRefused', /responds with 418/],
        [{ status: 200, body: '<html>log in</html>' }, false, 'HubStrange', /check that HF_ENDPOINT/],
        [{ status: 200, body: '{}' }, false, 'HubStrange', /the commit of main/]
      ]
      for (const [failure, token, tag, sentence] of cases) {
        const asked = fixture.hub.hubRequests.length
        const issue = await errorWhenAll(fixture, failure, token)
        equal(issue._tag, tag)
        match(issue.message, sentence)
        ok(!issue.message.includes('hf_'), 'a token is never shown')
        equal(fixture.hub.hubRequests.length, asked + 1, 'asking again would not help')
      }
    }))

  it('distinguishes a missing repository, revision and file', () =>
    withHub(async ({ download, hub }) => {
      equal(left(await download({}, 'Org/other'))[0]._tag, 'HubRepoNotFound')
      const [revision] = left(await download({ revision: 'v9' }))
      match(revision.message, /Org\/Some-model\.v1_0: the hub has no revision v9/)
      hub.nextFailure = ({ path }) =>
        path.endsWith('tokenizer.json') ? { status: 404, headers: { 'x-error-code': 'EntryNotFound' } } : undefined
      match(left(await download())[0].message, /no file tokenizer\.json at revision main/)
    }))

  it('is retried when the hub is busy or down, after the requested wait, a bounded number of times', () =>
    withHub(async (fixture) => {
      const { hub, download, warnings } = fixture
      const later = { status: 429, headers: { 'retry-after': '1' } }
      hub.nextFailure = () => (hub.hubRequests.length === 1 ? later : hub.hubRequests.length === 2 ? { status: 503 } : undefined)
      const begun = performance.now()
      right(await download())
      ok(performance.now() - begun >= 1000)
      match(warnings[0]!, /responds with 429; retrying in 1\.0 s/)
      for (const [failure, tag, times] of [
        [{ status: 429 }, 'HubBusy', maxAttempts],
        [{ status: 503 }, 'HubDown', maxAttempts],
        [{ status: 429, headers: { 'retry-after': '3600' } }, 'HubBusy', 1],
        [{ status: 429, headers: { ratelimit: '"api";r=0;t=3600' } }, 'HubBusy', 1],
        [{ status: 429, headers: { 'retry-after': new Date(Date.now() + 3.6e6).toUTCString() } }, 'HubBusy', 1]
      ] as const) {
        await rm(join(fixture.cacheDir, 'models--Org--Some-model.v1_0'), { recursive: true, force: true })
        const asked = hub.hubRequests.length
        const issue = await errorWhenAll(fixture, failure)
        equal(issue._tag, tag)
        match(issue.message, times === 1 ? /try again in 3(600|599) s/ : /try again in a few minutes/)
        equal(hub.hubRequests.length - asked, times)
      }
    }))
})

describe('a token', () => {
  it('is sent to the hub with every request, never to the store of large files', () =>
    withHub(async ({ download, hub }) => {
      right(await download({ token: ' hf_secret\n' }))
      ok(hub.hubRequests.every(({ token }) => token === 'hf_secret'))
      ok(hub.storeRequests.length > 0 && hub.storeRequests.every(({ token }) => token === undefined))
    }))

  it('with invalid characters is refused before a request', () =>
    withHub(async ({ download, hub }) => {
      for (const token of ['hf_ä', 'hf a', '']) equal(left(await download({ token }))[0]._tag, 'BadToken')
      equal(hub.hubRequests.length, 0)
    }))

  it('is not stored in the cache', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'hub-'))
    await withHub(async ({ download }) => {
      right(await download({ token: 'hf_secret', cacheDir: folder }))
      for (const entry of await readdir(folder, { recursive: true, withFileTypes: true }))
        if (entry.isFile()) ok(!(await readFile(join(entry.parentPath, entry.name), 'latin1')).includes('hf_secret'))
    })
    await rm(folder, { recursive: true })
  })
})
