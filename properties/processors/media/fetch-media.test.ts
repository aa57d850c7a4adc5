import assert from 'node:assert/strict'
import http, { createServer, type Server } from 'node:http'
import { syncBuiltinESMExports } from 'node:module'
import { type AddressInfo, connect, type LookupFunction } from 'node:net'
import { gzipSync } from 'node:zlib'
import * as E from 'fp-ts/lib/Either.js'
import { orThrow } from '../../../lib/error.js'
import { readImage } from '../../../processors/image/image.js'
import { type DownloadOptions, download } from '../../../processors/media/fetch-media.js'

const IMAGE = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==',
  'base64'
)

/** A resolver of names that answers with these addresses, one list a call; the last one stays. */
const resolver = (...answers: readonly (readonly string[])[]) => {
  const asked: string[] = []
  const lookup: LookupFunction = (host, _, callback) => {
    const addresses = answers[Math.min(asked.length, answers.length - 1)]!
    asked.push(host)
    callback(
      null,
      addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
    )
  }
  return { asked, lookup }
}

describe('download', () => {
  let server: Server
  let origin: string
  let port: number
  let location = ''
  const requests: string[] = []
  before((done) => {
    server = createServer((request, response) => {
      const { url = '/', headers } = request
      requests.push(`${headers.host?.split(':')[0]}${url}`)
      if (url === '/slow') return // never answers
      if (url === '/stall') return void response.writeHead(200, { 'content-length': 9 }).write('x') // never ends
      if (url === '/moved') response.writeHead(302, { location: '/image' }).end()
      else if (url === '/round') response.writeHead(302, { location: '/round' }).end()
      else if (url === '/to') response.writeHead(302, { location }).end()
      else if (url === '/image') response.end(IMAGE)
      else if (url === '/gzip') response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(IMAGE))
      else if (url === '/bomb') response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(Buffer.alloc(2e6)))
      else if (url === '/endless') for (let i = 0; i < 64; i++) response.write(Buffer.alloc(2 ** 16))
      else response.writeHead(404).end()
    })
    server.listen(0, '127.0.0.1', () => {
      port = (server.address() as AddressInfo).port
      origin = `http://127.0.0.1:${port}`
      done()
    })
  })
  beforeEach(() => requests.splice(0))
  after(() => {
    server.closeAllConnections()
    server.close()
  })

  const wrong = async (path: string, options?: DownloadOptions): Promise<string> => {
    const result = await download(new URL(path, origin), options)()
    return E.isLeft(result) ? result.left[0].message : 'no error'
  }
  const isGlobal = { mediaPolicy: { addresses: 'global' } } as const

  it('downloads bytes, also through a redirect and compressed', async () => {
    for (const path of ['/image', '/moved', '/gzip']) assert.deepEqual(await orThrow(download(new URL(path, origin))), IMAGE)
    assert.equal((await orThrow(readImage(`${origin}/image`))).width, 1)
    for (const timeout of [Number.POSITIVE_INFINITY, 5e6])
      assert.deepEqual(await orThrow(download(new URL('/image', origin), { timeout })), IMAGE)
  })

  it('reports the reason of a failed download', async () => {
    assert.match(await wrong('/none'), /\/none: could not be fetched: the server answered 404/)
    for (const path of ['/slow', '/stall']) assert.match(await wrong(path, { timeout: 0.1 }), /took longer than 0.1 seconds/)
    assert.match(await wrong('/image', { maxBytes: 10 }), /larger than 10 bytes/)
    for (const path of ['/endless', '/bomb']) assert.match(await wrong(path, { maxBytes: 1e6 }), /larger than 1000000 bytes/)
    assert.match(await wrong('/round'), /more than 10 redirects/)
    assert.match(await wrong('/moved', { mediaPolicy: { maxRedirects: 0 } }), /more than 0 redirects/)
    assert.match(await wrong('http://127.0.0.1:1/'), /could not be fetched: connect ECONNREFUSED 127\.0\.0\.1:1\.$/)
  })

  it('a redirect opens no file and no data URL', async () => {
    for (location of ['file:///etc/hostname', 'data:image/png;base64,AAAA', 'ftp://127.0.0.1/'])
      assert.match(await wrong('/to'), /redirects to (file|data|ftp):, only http and https are allowed/)
  })

  it("addresses: 'global' refuses IP addresses in every notation before a connection", async () => {
    for (const host of [
      '127.0.0.1',
      '2130706433',
      '0x7f.1',
      '0177.0.0.1',
      '127.1',
      '[::1]',
      '[::ffff:127.0.0.1]',
      '[::127.0.0.1]',
      '[64:ff9b::7f00:1]',
      '0'
    ])
      for (const options of [isGlobal, { allowPrivateAddresses: false }])
        assert.match(await wrong(`http://${host}:${port}/image`, options), /is not an address on the internet/, host)
    assert.deepEqual(requests, [])
  })

  it('the socket resolves the name once, and connects to the address that was checked', async () => {
    const { asked, lookup } = resolver(['127.0.0.1'])
    assert.deepEqual(await orThrow(download(`http://name.test:${port}/moved`, { lookup })), IMAGE)
    assert.deepEqual(asked, ['name.test', 'name.test'], 'once a hop')
    assert.deepEqual(requests, ['name.test/moved', 'name.test/image'])
  })

  it("addresses: 'global' refuses names with any other address, also where the answer changes", async () => {
    for (const answers of [[['127.0.0.1']], [['8.8.8.8', '127.0.0.1']], [['::1']], [['169.254.169.254'], ['8.8.8.8']], [[]]]) {
      const { asked, lookup } = resolver(...answers)
      assert.match(
        await wrong(`http://name.test:${port}/image`, { ...isGlobal, lookup }),
        /not an address on the internet|has no address/
      )
      assert.deepEqual(asked, ['name.test'])
    }
    assert.deepEqual(requests, [])
  })

  it('the address of the connection itself is checked before anything is sent', async () => {
    let reads = 0
    const lookup: LookupFunction = (_, __, callback) =>
      callback(null, [
        {
          get address() {
            return reads++ === 0 ? '8.8.8.8' : '127.0.0.1'
          },
          family: 4
        }
      ])
    assert.match(
      await wrong(`http://name.test:${port}/image`, { ...isGlobal, lookup }),
      /name\.test \(127\.0\.0\.1\) is not an address/
    )
    assert.deepEqual(requests, [])
  })

  it('domains are checked at the first URL and after each redirect', async () => {
    const { lookup } = resolver(['127.0.0.1'])
    const options = { lookup, mediaPolicy: { domains: ['one.test', '*.two.test'] } }
    for (location of [`http://a.two.test:${port}/image`, '/image'])
      assert.equal(await wrong(`http://one.test:${port}/to`, options), 'no error')
    for (location of [`http://two.test:${port}/image`, `http://127.0.0.1:${port}/image`, `//localhost:${port}/image`])
      assert.match(await wrong(`http://one.test:${port}/to`, options), /is not one of the allowed domains/)
    assert.match(await wrong(`http://other.test:${port}/image`, options), /other\.test is not one of the allowed domains/)
    assert.match(await wrong(`http://one.test:${port}/image`, { mediaPolicy: { domains: [] } }), /allowed domains/)
  })

  it("addresses: 'global' is checked after each redirect", async () => {
    // a server on the internet: its socket is one of this test's server that tells another address
    const { request } = http
    const faked = ((url: URL, options: http.RequestOptions, callback: (response: http.IncomingMessage) => void) =>
      request(
        url,
        url.hostname !== 'internet.test'
          ? options
          : {
              ...options,
              agent: undefined,
              createConnection: () => Object.defineProperty(connect(port, '127.0.0.1'), 'remoteAddress', { value: '8.8.8.8' })
            },
        callback
      )) as typeof request
    http.request = faked
    syncBuiltinESMExports()
    try {
      const { lookup } = resolver(['127.0.0.1'])
      assert.equal(await wrong('http://internet.test/image', { ...isGlobal, lookup }), 'no error')
      for (location of [
        origin,
        `http://localhost:${port}/image`,
        `http://2130706433:${port}/image`,
        `http://[::ffff:7f00:1]:${port}/image`,
        `//inner.test:${port}/image`
      ])
        assert.match(
          await wrong('http://internet.test/to', { ...isGlobal, lookup }),
          /is not an address on the internet/,
          location
        )
      assert.deepEqual([...new Set(requests)], ['internet.test/image', 'internet.test/to'])
    } finally {
      http.request = request
      syncBuiltinESMExports()
    }
  })
})
