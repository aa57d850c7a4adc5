import assert from 'node:assert/strict'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import * as E from 'fp-ts/lib/Either.js'
import { orThrow } from '../../../lib/error.js'
import { readImage } from '../../../processors/image/image.js'
import { type DownloadOptions, download } from '../../../processors/media/fetch-media.js'
import { imagePath } from '../cases.js'

describe('download', () => {
  let server: Server
  let origin: string
  before((done) => {
    server = createServer((request, response) => {
      const { url = '/' } = request
      if (url === '/slow') return // never answers
      if (url === '/moved') response.writeHead(302, { location: '/image' }).end()
      else if (url === '/round') response.writeHead(302, { location: '/round' }).end()
      else if (url === '/file') response.writeHead(302, { location: 'file:///etc/hostname' }).end()
      else if (url === '/image') response.end(IMAGE)
      else response.writeHead(404).end()
    })
    server.listen(0, '127.0.0.1', () => {
      origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      done()
    })
  })
  after(() => {
    server.closeAllConnections()
    server.close()
  })

  const IMAGE = Buffer.from(
    'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==',
    'base64'
  )
  const wrong = async (path: string, options?: DownloadOptions): Promise<string> => {
    const result = await download(new URL(path, origin), options)()
    return E.isLeft(result) ? result.left[0].message : 'no error'
  }

  it('downloads bytes, also through a redirect', async () => {
    assert.deepEqual(await orThrow(download(new URL('/image', origin))), IMAGE)
    assert.deepEqual(await orThrow(download(new URL('/moved', origin))), IMAGE)
    assert.equal((await orThrow(readImage(`${origin}/image`))).width, 1)
  })

  it('reports the reason of a failed download', async () => {
    assert.match(await wrong('/none'), /\/none: could not be fetched: the server answered 404/)
    assert.match(await wrong('/slow', { timeout: 0.1 }), /took longer than 0.1 seconds/)
    assert.match(await wrong('/image', { maxBytes: 10 }), /larger than 10 bytes/)
    assert.match(await wrong('/file'), /redirects to file:/)
    assert.match(await wrong('/round'), /more than 10 redirects/)
    assert.match(await wrong('/image', { allowPrivateAddresses: false }), /127\.0\.0\.1 is a private address/)
    assert.match(await wrong('http://127.0.0.1:1/'), /could not be fetched: fetch failed/)
    assert.match(await wrong('http://[::1]/', { allowPrivateAddresses: false }), /private address/)
  })

  it('allowPrivateAddresses: false refuses private addresses in every notation, also after a redirect', async () => {
    const real = globalThis.fetch
    const asked: string[] = []
    let location = ''
    globalThis.fetch = async (url) => {
      asked.push(String(url))
      return new Response(null, { status: 302, headers: { location } })
    }
    try {
      for (location of [
        'http://127.0.0.1/',
        'http://2130706433/',
        'http://[::ffff:10.1.1.1]/',
        'http://localhost/',
        '//192.168.0.1'
      ]) {
        assert.match(await wrong('http://203.0.113.1/', { allowPrivateAddresses: false }), /is a private address/, location)
        assert.deepEqual(asked.splice(0), ['http://203.0.113.1/'])
      }
      location = 'file:///etc/hostname'
      assert.match(await wrong('http://203.0.113.1/', { allowPrivateAddresses: false }), /redirects to file:/)
    } finally {
      globalThis.fetch = real
    }
  })

  it('does not open files', async () => {
    assert.equal((await orThrow(readImage(imagePath('1x1.png'), { allowPrivateAddresses: false }))).width, 1)
  })
})
