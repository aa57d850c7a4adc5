import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { embed, loadVisionEncoder } from '../../../generation/embed.js'
import { InputError, orThrow } from '../../../lib/error.js'
import { readImage } from '../../../processors/image/image.js'
import { allowsHost, type MediaPolicy, policyOf, serverMediaPolicy } from '../../../processors/media/media-policy.js'
import { loadProcessor } from '../../../processors/processor.js'
import type { ContentItem } from '../../../processors/text/messages.js'
import { openVideo } from '../../../processors/video/video.js'
import { demo, imagePath } from '../cases.js'

const png = readFileSync(imagePath('1x1.png'))

describe('media policy: local files', () => {
  let dir: string
  let inside: string
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'policy-'))
    inside = join(dir, 'allowed')
    mkdirSync(join(inside, 'frames'), { recursive: true })
    mkdirSync(join(dir, 'allowed-not'))
    for (const path of ['allowed/a.png', 'allowed/..b.png', 'allowed/frames/1.png', 'allowed-not/a.png', 'secret.png'])
      writeFileSync(join(dir, path), png)
    symlinkSync(join(dir, 'secret.png'), join(inside, 'link.png'))
    symlinkSync(dir, join(inside, 'out'))
    symlinkSync(join(inside, 'a.png'), join(inside, 'near.png'))
    symlinkSync(inside, join(dir, 'root-link'))
  })
  after(() => rmSync(dir, { recursive: true }))

  const wrong = async (source: string | URL, mediaPolicy: MediaPolicy): Promise<string> => {
    const result = await readImage(source, { mediaPolicy })()
    return E.isLeft(result) ? result.left[0].message : 'no error'
  }

  it('roots allow the files below them, in every notation', async () => {
    const files = [join(inside, 'a.png'), join(inside, '..b.png'), join(inside, 'near.png'), join(inside, 'frames/../a.png')]
    for (const root of [inside, join(dir, 'root-link'), `${inside}/`])
      for (const file of [...files, relative(process.cwd(), files[0]!), pathToFileURL(files[0]!)])
        assert.equal(await wrong(file, { localFiles: [root] }), 'no error', String(file))
    assert.equal(await wrong(join(dir, 'secret.png'), {}), 'no error', 'the default opens every file')
  })

  it('roots refuse files beside them, and symbolic links that lead out, whether the file exists or not', async () => {
    for (const path of [
      'secret.png',
      'allowed-not/a.png',
      'allowed/../secret.png',
      'allowed/link.png',
      'allowed/out/secret.png',
      'none.png'
    ])
      for (const file of [join(dir, path), pathToFileURL(join(dir, path))])
        assert.match(
          await wrong(file, { localFiles: [inside] }),
          /this local file may not be opened \(mediaPolicy\.localFiles\)\.$/,
          path
        )
    for (const localFiles of [false, []] as const)
      for (const file of [join(inside, 'a.png'), join(dir, 'none.png'), '/etc/hostname', '/dev/zero'])
        assert.match(await wrong(file, { localFiles }), /may not be opened/, file)
    assert.match(await wrong('/dev/zero', {}), /not a regular file/)
  })

  it('holds for videos, folders of frames and single frames', async () => {
    const refused = async (video: Parameters<typeof openVideo>[0]): Promise<string> => {
      const opened = await openVideo(video, undefined, { mediaPolicy: { localFiles: [inside] } })()
      if (E.isLeft(opened)) return opened.left[0].message
      for await (const frame of opened.right.frames([0])) if (E.isLeft(frame)) return frame.left[0].message
      return 'no error'
    }
    assert.equal(await refused(join(inside, 'frames')), 'no error')
    for (const video of [dir, join(inside, 'out'), [join(dir, 'secret.png')], join(dir, 'a.mp4'), pathToFileURL(dir)])
      assert.match(await refused(video), /may not be opened/)
  })

  it("the server's policy opens data URLs, base64 and bytes, and nothing else; refusals are input errors", async () => {
    const processor = await orThrow(loadProcessor(demo))
    const prepare = async (item: ContentItem): Promise<void> => {
      const content = [item, { type: 'text', text: 'x' } as const]
      ;(await orThrow(processor.prepare([[{ role: 'user', content }]], { mediaPolicy: serverMediaPolicy }))).dispose()
    }
    const base64 = png.toString('base64')
    for (const image of [base64, `data:image/png;base64,${base64}`, png]) await prepare({ type: 'image', image })
    for (const source of [join(inside, 'a.png'), pathToFileURL(join(inside, 'a.png')).href, 'http://example.test/a.png'])
      for (const item of [
        { type: 'image', url: source },
        { type: 'image', path: source },
        { type: 'image', base64: source },
        { type: 'video', video: source },
        { type: 'video', frames: [source] }
      ] as const)
        await assert.rejects(
          prepare(item),
          (error: Error) => error instanceof InputError && /may not be opened|allowed domains/.test(error.message)
        )
  })
})

describe('media policy: embeddings', () => {
  it('holds for embed, with the limit of pixels', async () => {
    const vision = await loadVisionEncoder()
    try {
      await assert.rejects(embed(vision, [imagePath('rgb.png')], { mediaPolicy: serverMediaPolicy }), /may not be opened/)
      await assert.rejects(embed(vision, [imagePath('rgb.png')], { maxPixels: 10 }), /more than the limit of 10/)
    } finally {
      vision.dispose()
    }
  })
})

describe('media policy: options', () => {
  it('domains are exact names, or all subdomains', () => {
    const policy = policyOf({ mediaPolicy: { domains: ['example.org', '*.Example.com'] } })
    for (const host of ['example.org', 'EXAMPLE.org', 'example.org.', 'a.example.com', 'a.b.example.com'])
      assert.ok(allowsHost(policy, host), host)
    for (const host of [
      'a.example.org',
      'example.com',
      'notexample.com',
      'example.com.evil.test',
      'badexample.org',
      '',
      '.example.com'
    ])
      assert.ok(!allowsHost(policy, host), host)
  })

  it('earlier options are aliases, which the policy precedes', () => {
    assert.equal(policyOf({ allowPrivateAddresses: false }).addresses, 'global')
    assert.equal(policyOf({ allowPrivateAddresses: true }).addresses, 'any')
    const { timeout, maxBytes, addresses } = policyOf({
      timeout: 1,
      maxBytes: 2,
      mediaPolicy: { timeout: 3, addresses: 'global' },
      allowPrivateAddresses: true
    })
    assert.deepEqual([timeout, maxBytes, addresses], [3, 2, 'global'])
    assert.deepEqual(policyOf({ mediaPolicy: serverMediaPolicy }), serverMediaPolicy)
  })

  it('refuses a policy with a misspelt name or value, which would else be an open one', () => {
    for (const policy of [
      { localFile: false },
      { domains: 'example.org' },
      { addresses: 'public' },
      { localFiles: '/data' },
      { maxBytes: -1 },
      { timeout: '1' }
    ])
      assert.throws(
        () => policyOf({ mediaPolicy: policy as MediaPolicy }),
        /^RangeError: mediaPolicy\.\w+: expected/,
        JSON.stringify(policy)
      )
  })
})
