import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A request that a server received. */
export interface HubRequest {
  readonly path: string
  readonly range: string | undefined
  readonly token: string | undefined
}

/** Failure of a request: another response, a connection cut or stalled after some bytes, ignored ranges, changed or surplus bytes. */
export interface HubFailure {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  readonly cutAfter?: number
  readonly stallAfter?: number
  readonly noRange?: boolean
  readonly flipBits?: boolean
  readonly surplus?: boolean
}

export interface FakeRepo {
  /** Bytes by file name; files with the extension `.safetensors` are served by the store of large files. */
  readonly files: Readonly<Record<string, Buffer>>
  /** Branches and tags; the commit of `main` unless given. */
  readonly revisions?: Readonly<Record<string, string>>
}

export const commitOf = (name: string): string => createHash('sha1').update(name).digest('hex')
export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
/** Object id of a file in git. */
export const gitHash = (bytes: Buffer): string => createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex')
const isLarge = (path: string): boolean => path.endsWith('.safetensors')

const listen = (server: Server): Promise<string> =>
  new Promise((done) => server.listen(0, '127.0.0.1', () => done(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)))

/** Two servers on loopback with the protocol of the hub and of its store of large files. */
export interface FakeHub {
  readonly endpoint: string
  readonly hubRequests: HubRequest[]
  readonly storeRequests: HubRequest[]
  readonly repos: Map<string, FakeRepo>
  /** Failure of a request, or undefined; called once for every request, in order. */
  nextFailure: (asked: HubRequest) => HubFailure | undefined
  /** Number of file bytes that were sent. */
  sent: number
  /** Number of bytes of the current file that the client has received; a connection is cut only then. */
  arrived: number
  readonly close: () => Promise<void>
}

const notFound = (out: ServerResponse, code: string): void =>
  void out.writeHead(404, { 'x-error-code': code, 'x-error-message': code }).end()

/** Breaks a connection once `holds()` is true; bytes in flight when a connection breaks may be lost. */
const cutWhen = async (holds: () => boolean, out: ServerResponse): Promise<void> => {
  while (!holds() && !out.destroyed) await new Promise((done) => setTimeout(done, 1))
  out.destroy()
}

/** Sends the requested range of the bytes, with the given failure. */
const send = (hub: FakeHub, out: ServerResponse, bytes: Buffer, range: string | undefined, failure: HubFailure, etag: string) => {
  const begin = failure.noRange ? 0 : Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0)
  const right = failure.flipBits ? Buffer.from(bytes.map((byte) => byte ^ 1)) : bytes
  const part = failure.surplus ? Buffer.concat([right.subarray(begin), right]) : right.subarray(begin)
  const isPart = begin > 0
  out.writeHead(isPart ? 206 : 200, {
    etag: `"${etag}"`,
    'content-length': part.length,
    ...(isPart ? { 'content-range': `bytes ${begin}-${bytes.length - 1}/${bytes.length}` } : {})
  })
  const stop = failure.cutAfter ?? failure.stallAfter
  const some = part.subarray(0, stop ?? part.length)
  hub.sent += some.length
  // a response that never ends blocks the next one on its connection, so the response must be a part
  if (stop === undefined || (failure.stallAfter !== undefined && some.length === part.length)) return void out.end(some)
  hub.arrived = 0
  const hasArrived = () => some.length === 0 || hub.arrived >= begin + some.length
  out.write(some, () => void (failure.cutAfter === undefined || cutWhen(hasArrived, out)))
  if (some.length === 0) out.flushHeaders()
}

const entryOf = (path: string, bytes: Buffer) => ({
  type: 'file',
  path,
  size: bytes.length,
  oid: gitHash(bytes),
  ...(isLarge(path) ? { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 } } : {})
})

/** Sends the list of files in pages of three entries. */
const sendTree = (out: ServerResponse, url: URL, { files }: FakeRepo): void => {
  const from = Number(url.searchParams.get('cursor') ?? 0)
  const all = [{ type: 'directory', path: 'examples', size: 0, oid: commitOf('examples') }].concat(
    Object.entries(files).map(([path, bytes]) => entryOf(path, bytes))
  )
  const next = new URL(url)
  next.searchParams.set('cursor', String(from + 3))
  if (from + 3 < all.length) out.setHeader('link', `<${next}>; rel="next"`)
  out.setHeader('content-type', 'application/json').end(JSON.stringify(all.slice(from, from + 3)))
}

const answerHub = (
  hub: FakeHub,
  store: string,
  asked: HubRequest,
  url: URL,
  out: ServerResponse,
  failure: HubFailure
): unknown => {
  const [, repoName = '', kind, rest = ''] =
    /^(?:\/api\/models)?\/([^/]+\/[^/]+)\/(revision|tree|resolve)\/(.*)$/.exec(url.pathname) ?? []
  const repo = hub.repos.get(repoName)
  if (!repo) return notFound(out, 'RepoNotFound')
  const revisions: Readonly<Record<string, string>> = { main: commitOf('main'), ...repo.revisions }
  const [name = '', file = ''] = kind === 'resolve' ? rest.split(/\/(.*)/) : [decodeURIComponent(rest)]
  const commit = revisions[name] ?? Object.values(revisions).find((value) => value === name)
  if (commit === undefined) return notFound(out, 'RevisionNotFound')
  if (kind === 'revision')
    return void out.setHeader('content-type', 'application/json').end(JSON.stringify({ _id: '1', id: repoName, sha: commit }))
  if (kind === 'tree') return sendTree(out, url, repo)
  const bytes = repo.files[decodeURIComponent(file)]
  if (!bytes) return notFound(out, 'EntryNotFound')
  out.setHeader('x-repo-commit', commit)
  if (!isLarge(file)) return send(hub, out, bytes, asked.range, failure, gitHash(bytes))
  const linked = { 'x-linked-etag': `"${sha256(bytes)}"`, 'x-linked-size': bytes.length }
  out.writeHead(302, { ...linked, location: `${store}/${repoName}/${file}?signature=1` }).end()
}

const onRequest =
  (
    log: HubRequest[],
    hub: () => FakeHub,
    answer: (asked: HubRequest, url: URL, out: ServerResponse, failure: HubFailure) => unknown
  ) =>
  (request: IncomingMessage, out: ServerResponse): void => {
    const url = new URL(request.url ?? '/', `http://${request.headers.host}`)
    const { range, authorization } = request.headers
    const asked = { path: url.pathname, range, token: authorization?.replace('Bearer ', '') }
    log.push(asked)
    const failure = hub().nextFailure(asked) ?? {}
    if (failure.status !== undefined) return void out.writeHead(failure.status, failure.headers).end(failure.body)
    answer(asked, url, out, failure)
  }

/** Starts a hub without repositories. */
export const startHub = async (): Promise<FakeHub> => {
  const [asked, stored]: [HubRequest[], HubRequest[]] = [[], []]
  const large = createServer(
    onRequest(
      stored,
      () => hub,
      ({ range }, url, out, failure) => {
        const [, name = '', file = ''] = /^\/([^/]+\/[^/]+)\/(.*)$/.exec(url.pathname) ?? []
        send(hub, out, hub.repos.get(name)!.files[file]!, range, failure, 'of-the-store')
      }
    )
  )
  const store = await listen(large)
  const main = createServer(
    onRequest(
      asked,
      () => hub,
      (request, url, out, failure) => answerHub(hub, store, request, url, out, failure)
    )
  )
  const close = async (): Promise<void> => {
    for (const server of [main, large]) {
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
    }
  }
  const hub: FakeHub = {
    endpoint: await listen(main),
    hubRequests: asked,
    storeRequests: stored,
    repos: new Map(),
    nextFailure: () => undefined,
    sent: 0,
    arrived: 0,
    close
  }
  return hub
}
