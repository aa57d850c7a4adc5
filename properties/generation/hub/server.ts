import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** What one request was. */
export interface HubRequest {
  readonly path: string
  readonly range: string | undefined
  readonly token: string | undefined
}

/** What goes wrong with a request: another answer, a connection cut after some bytes, one that falls silent, ranges not known, bytes changed. */
export interface HubFailure {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  readonly cutAfter?: number
  readonly stallAfter?: number
  readonly noRange?: boolean
  readonly spoil?: boolean
  readonly tooMuch?: boolean
}

export interface FakeRepo {
  /** Large files are those whose names end in `.safetensors`; their bytes come from another host. */
  readonly files: Readonly<Record<string, Buffer>>
  /** Branches and tags; the commit of `main` unless given. */
  readonly revisions?: Readonly<Record<string, string>>
}

export const commitOf = (name: string): string => createHash('sha1').update(name).digest('hex')
export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
/** The name that git gives a file. */
export const gitHash = (bytes: Buffer): string => createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex')
const isLarge = (path: string): boolean => path.endsWith('.safetensors')

const listen = (server: Server): Promise<string> =>
  new Promise((done) => server.listen(0, '127.0.0.1', () => done(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)))

/** Two hosts on loopback that speak as the hub and its store of large files do. */
export interface FakeHub {
  readonly endpoint: string
  readonly asked: HubRequest[]
  readonly stored: HubRequest[]
  readonly repos: Map<string, FakeRepo>
  /** What goes wrong with the next requests; asked of each request, in order. */
  trouble: (asked: HubRequest) => HubFailure | undefined
  /** Bytes of files that were sent. */
  sent: number
  /** Bytes of the file under way that have arrived where they are wanted; its connection is cut only then. */
  arrived: number
  readonly close: () => Promise<void>
}

const notFound = (out: ServerResponse, code: string): void =>
  void out.writeHead(404, { 'x-error-code': code, 'x-error-message': code }).end()

/** Breaks a connection once `holds`: what is on its way when one breaks may be lost. */
const cutWhen = async (holds: () => boolean, out: ServerResponse): Promise<void> => {
  while (!holds() && !out.destroyed) await new Promise((done) => setTimeout(done, 1))
  out.destroy()
}

/** Sends bytes as a range of them was asked for, or as the trouble has it. */
const send = (hub: FakeHub, out: ServerResponse, bytes: Buffer, range: string | undefined, trouble: HubFailure, etag: string) => {
  const begin = trouble.noRange ? 0 : Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0)
  const right = trouble.spoil ? Buffer.from(bytes.map((byte) => byte ^ 1)) : bytes
  const part = trouble.tooMuch ? Buffer.concat([right.subarray(begin), right]) : right.subarray(begin)
  const isPart = begin > 0
  out.writeHead(isPart ? 206 : 200, {
    etag: `"${etag}"`,
    'content-length': part.length,
    ...(isPart ? { 'content-range': `bytes ${begin}-${bytes.length - 1}/${bytes.length}` } : {})
  })
  const stop = trouble.cutAfter ?? trouble.stallAfter
  const some = part.subarray(0, stop ?? part.length)
  hub.sent += some.length
  // an answer that is never ended keeps the next one on its connection waiting, so it must be a part
  if (stop === undefined || (trouble.stallAfter !== undefined && some.length === part.length)) return void out.end(some)
  hub.arrived = 0
  const hasArrived = () => some.length === 0 || hub.arrived >= begin + some.length
  out.write(some, () => void (trouble.cutAfter === undefined || cutWhen(hasArrived, out)))
  if (some.length === 0) out.flushHeaders()
}

const entryOf = (path: string, bytes: Buffer) => ({
  type: 'file',
  path,
  size: bytes.length,
  oid: gitHash(bytes),
  ...(isLarge(path) ? { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 } } : {})
})

/** Three entries a page, as the hub splits longer lists. */
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
  trouble: HubFailure
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
  if (!isLarge(file)) return send(hub, out, bytes, asked.range, trouble, gitHash(bytes))
  const linked = { 'x-linked-etag': `"${sha256(bytes)}"`, 'x-linked-size': bytes.length }
  out.writeHead(302, { ...linked, location: `${store}/${repoName}/${file}?signature=1` }).end()
}

const onRequest =
  (
    log: HubRequest[],
    hub: () => FakeHub,
    answer: (asked: HubRequest, url: URL, out: ServerResponse, trouble: HubFailure) => unknown
  ) =>
  (request: IncomingMessage, out: ServerResponse): void => {
    const url = new URL(request.url ?? '/', `http://${request.headers.host}`)
    const { range, authorization } = request.headers
    const asked = { path: url.pathname, range, token: authorization?.replace('Bearer ', '') }
    log.push(asked)
    const trouble = hub().trouble(asked) ?? {}
    if (trouble.status !== undefined) return void out.writeHead(trouble.status, trouble.headers).end(trouble.body)
    answer(asked, url, out, trouble)
  }

/** Starts a hub without repositories. */
export const startHub = async (): Promise<FakeHub> => {
  const [asked, stored]: [HubRequest[], HubRequest[]] = [[], []]
  const large = createServer(
    onRequest(
      stored,
      () => hub,
      ({ range }, url, out, trouble) => {
        const [, name = '', file = ''] = /^\/([^/]+\/[^/]+)\/(.*)$/.exec(url.pathname) ?? []
        send(hub, out, hub.repos.get(name)!.files[file]!, range, trouble, 'of-the-store')
      }
    )
  )
  const store = await listen(large)
  const main = createServer(
    onRequest(
      asked,
      () => hub,
      (request, url, out, trouble) => answerHub(hub, store, request, url, out, trouble)
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
    asked,
    stored,
    repos: new Map(),
    trouble: () => undefined,
    sent: 0,
    arrived: 0,
    close
  }
  return hub
}
