import type { EngineRequest, GenerationEngine } from '../../../generation/engine/engine-types.js'
import type { RunningServer } from '../../../generation/server/index.js'

/** Size of the load. */
export interface Load {
  /** Clients that send their next request when they have the answer to the last. */
  readonly clients: number
  readonly requestsPerClient: number
  readonly promptTokens: number
  /** Images of random pixels in each request, all different. */
  readonly images: number
  readonly newTokens: number
}

/** Figures of one load; durations in seconds. */
export interface LoadFigures {
  readonly clients: number
  readonly requests: number
  readonly seconds: number
  readonly newTokens: number
  readonly tokensPerSecond: number
  /** From the request to its first token. */
  readonly firstToken: { readonly p50: number; readonly p95: number }
  /** From one token to the next, over all requests. */
  readonly tokenInterval: { readonly p50: number; readonly p95: number }
  /** Mean number of rows of a decoding step. */
  readonly meanBatch: number
}

/** The smallest value that at least this share of the values does not exceed; NaN without values. */
export const percentile = (values: readonly number[], share: number): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN
}

/** Uniform integers below `limit`; the same for the same seed. Source: `mulberry32`. */
const randomIntegers = (seed: number) => {
  let state = seed
  return (limit: number): number => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % limit
  }
}

const noise = (random: (limit: number) => number, side: number) => ({
  data: Uint8Array.from({ length: 3 * side * side }, () => random(256)),
  ...{ width: side, height: side, channels: 3 as const }
})

/** A request of its own prompt: random ids of ordinary tokens, or a conversation with images. */
const requestOf = ({ info }: GenerationEngine, { promptTokens, images, newTokens }: Load, seed: number): EngineRequest => {
  const random = randomIntegers(seed)
  const options = { maxNewTokens: newTokens, eosTokenIds: [], doSample: false }
  if (images === 0) {
    const ids = Array.from({ length: promptTokens }, () => random(Math.min(info.vocabSize, 256)))
    return { promptIds: ids, options }
  }
  const items = Array.from({ length: images }, () => ({ type: 'image' as const, image: noise(random, 448) }))
  const text = Array.from({ length: promptTokens }, () => String.fromCharCode(97 + random(26))).join(' ')
  return { messages: [{ role: 'user', content: [...items, { type: 'text', text }] }], options }
}

/** Times of the tokens of one request, in seconds since its start. */
const timesOf = async (engine: GenerationEngine, request: EngineRequest): Promise<readonly number[]> => {
  const start = performance.now()
  const times: number[] = []
  for await (const { type } of engine.submit(request)) if (type === 'token') times.push((performance.now() - start) / 1000)
  return times
}

/** Runs the load against an engine, whose queue has room for all clients. */
export const runLoad = async (engine: GenerationEngine, load: Load, seed = 1): Promise<LoadFigures> => {
  const before = engine.stats().process
  const times: (readonly number[])[] = []
  const start = performance.now()
  const client = async (index: number): Promise<void> => {
    for (let i = 0; i < load.requestsPerClient; i++)
      times.push(await timesOf(engine, requestOf(engine, load, seed * 1_000_003 + index * 1009 + i)))
  }
  await Promise.all(Array.from({ length: load.clients }, (_, index) => client(index)))
  const seconds = (performance.now() - start) / 1000
  const after = engine.stats().process
  const newTokens = times.reduce((sum, { length }) => sum + length, 0)
  const first = times.map((list) => list[0]!)
  const intervals = times.flatMap((list) => list.slice(1).map((time, i) => time - list[i]!))
  const percentiles = (values: readonly number[]) => ({ p50: percentile(values, 0.5), p95: percentile(values, 0.95) })
  return {
    clients: load.clients,
    requests: times.length,
    ...{ seconds, newTokens },
    tokensPerSecond: newTokens / seconds,
    firstToken: percentiles(first),
    tokenInterval: percentiles(intervals),
    meanBatch: ((after?.decodedRows ?? 0) - (before?.decodedRows ?? 0)) / ((after?.steps ?? 0) - (before?.steps ?? 0))
  }
}

const fixed = (value: number, digits: number): string => value.toFixed(digits)

/** Milliseconds until a server answers other requests while the model encodes an image of seven tiles. */
export interface ResponseTimes {
  /** Of `GET /health`, asked again and again until the first token. */
  readonly health: { readonly p50: number; readonly worst: number; readonly count: number }
  /** From a client's leaving to the end of its request in the engine. */
  readonly abort: number
  /** Of a new request that the server refuses. */
  readonly refused: number
  readonly firstToken: number
}

const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const start = performance.now()
  await work()
  return performance.now() - start
}

/** Turns of the event loop until a condition holds. Throws after a minute. */
const until = async (holds: () => boolean): Promise<void> => {
  for (const end = performance.now() + 60_000; !holds(); await new Promise((resolve) => setImmediate(resolve)))
    if (performance.now() > end) throw new Error('bench:clients: the server has not changed its state within a minute')
}

/** Measures a server by HTTP; `image` is the data URL of an image with six tiles and a thumbnail. */
export const measureResponses = async ({ url, engine }: RunningServer, image: string): Promise<ResponseTimes> => {
  const headers = { 'content-type': 'application/json' }
  const post = (body: object, signal?: AbortSignal) =>
    fetch(`${url}/v1/chat/completions`, { method: 'POST', headers, body: JSON.stringify(body), signal: signal ?? null })
  const content = [
    { type: 'image_url', image_url: { url: image } },
    { type: 'text', text: 'Describe the image.' }
  ]
  const request = { messages: [{ role: 'user', content }], max_patches: 6, max_tokens: 1 }
  const { accepted, aborted } = engine.stats().requests
  let isAnswered = false
  const first = timed(async () => {
    await (await post(request)).text()
    isAnswered = true
  })
  const left = new AbortController()
  const long = { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1000, logit_bias: { 10: 100 } }
  const other = post(long, left.signal).catch(() => undefined)
  await until(() => engine.stats().requests.accepted === accepted + 2)
  const abort = await timed(async () => {
    left.abort()
    await other
    await until(() => engine.stats().requests.aborted === aborted + 1)
  })
  const refused = await timed(async () => (await post({ messages: [] })).text())
  const health: number[] = []
  do health.push(await timed(async () => (await fetch(`${url}/health`)).text()))
  while (!isAnswered)
  return {
    health: { p50: percentile(health, 0.5), worst: Math.max(...health), count: health.length },
    ...{ abort, refused },
    firstToken: await first
  }
}

/** The times in one line. */
export const responseLine = ({ health, abort, refused, firstToken }: ResponseTimes): string =>
  `while seven tiles are encoded (first token after ${fixed(firstToken, 0)} ms): health ${fixed(health.p50, 1)} ms, at most ` +
  `${fixed(health.worst, 1)} ms of ${health.count}; an abort ${fixed(abort, 1)} ms; a refused request ${fixed(refused, 1)} ms`

/** The figures as a table; the last column compares with the first row. */
export const loadTable = (figures: readonly LoadFigures[]): string => {
  const head = [
    ...['clients', 'requests', 'seconds', 'tokens/s', 'first token p50', 'p95'],
    ...['next token p50', 'p95', 'mean batch', 'throughput']
  ]
  const rows = figures.map((f) => [
    ...[String(f.clients), String(f.requests), fixed(f.seconds, 1), fixed(f.tokensPerSecond, 1)],
    ...[`${fixed(f.firstToken.p50, 2)} s`, `${fixed(f.firstToken.p95, 2)} s`],
    ...[`${fixed(1000 * f.tokenInterval.p50, 0)} ms`, `${fixed(1000 * f.tokenInterval.p95, 0)} ms`],
    ...[fixed(f.meanBatch, 1), `${fixed(f.tokensPerSecond / figures[0]!.tokensPerSecond, 2)} x`]
  ])
  const widths = head.map((name, i) => Math.max(name.length, ...rows.map((row) => row[i]!.length)))
  return [head, ...rows].map((row) => row.map((cell, i) => cell.padStart(widths[i]!)).join('  ')).join('\n')
}
