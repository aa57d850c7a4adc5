import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { complete } from '../../../generation/cli/chat-commands.js'
import { completePath, typedPath } from '../../../generation/cli/typed-path.js'

describe('typed paths', () => {
  let folder: string
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'typed-'))
    for (const name of ['my photo.jpg', 'my photos.txt', "it's.png", '.hidden']) await writeFile(join(folder, name), '')
    await mkdir(join(folder, 'more images'))
  })
  after(() => rm(folder, { recursive: true }))

  it('are read as in a shell: quotes, escapes, the home folder', () => {
    const readings = {
      'my\\ photo.jpg': 'my photo.jpg',
      '"my photo.jpg"': 'my photo.jpg',
      "'my photo.jpg'": 'my photo.jpg',
      'my photo.jpg': 'my photo.jpg',
      "it\\'s.png": "it's.png",
      '~/a.png': join(homedir(), 'a.png'),
      '"~/a b.png"': join(homedir(), 'a b.png'),
      'https://x/a.png': 'https://x/a.png'
    }
    for (const [typed, path] of Object.entries(readings)) assert.equal(typedPath(typed), path)
  })

  it('complete to what reads as the path: escaped, or in the quotes that were begun; folders end with a slash', async () => {
    assert.deepEqual(await completePath(`${folder}/my`), [`${folder}/my\\ photo.jpg`, `${folder}/my\\ photos.txt`])
    assert.deepEqual(await completePath(`"${folder}/my photo.`), [`"${folder}/my photo.jpg"`])
    assert.deepEqual(await completePath(`${folder}/mor`), [`${folder}/more\\ images/`])
    assert.deepEqual(await completePath(`${folder}/.h`), [`${folder}/.hidden`])
    const all = await completePath(`${folder}/`)
    assert.deepEqual(
      all.map(typedPath),
      ["it's.png", 'more images/', 'my photo.jpg', 'my photos.txt'].map((name) => `${folder}/${name}`)
    )
    assert.deepEqual(await completePath('/no/such/folder/'), [])
  })

  it('Tab completes commands, and the paths of the commands that take one', async () => {
    assert.deepEqual(await complete('/re'), [['/reset'], '/re'])
    assert.deepEqual(await complete('/i'), [['/image '], '/i'])
    assert.equal((await complete('/'))[0].length, 8)
    const typed = `${folder}/my\\ photo.`
    assert.deepEqual(await complete(`/image ${typed}`), [[`${folder}/my\\ photo.jpg`], typed])
    for (const line of ['what', `/system ${folder}/my`, `/king ${folder}/my`, '/king', ''])
      assert.deepEqual((await complete(line))[0], [])
  })
})
