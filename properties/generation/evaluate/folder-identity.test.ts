import assert from 'node:assert/strict'
import { cp, mkdtemp, open, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { demoModel } from '../../../generation/checkpoint/load.js'
import { folderIdentity } from '../../../generation/evaluate/folder-identity.js'

describe('the identity of a folder', () => {
  it('is its content: a copy is equal; other weights of the same size and time, other options or another name are not', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'identity-'))
    const copy = join(dir, 'copy')
    await cp(demoModel, copy, { recursive: true })
    const demo = await folderIdentity(demoModel)
    assert.equal(await folderIdentity(copy), demo)
    await writeFile(join(copy, 'README.md'), 'not a file of the model')
    assert.equal(await folderIdentity(copy), demo)
    const weights = join(copy, 'model.safetensors')
    const { size, atime, mtime } = await stat(weights)
    const handle = await open(weights, 'r+')
    await handle.write(Buffer.from([1, 2, 3, 4]), 0, 4, size >> 1)
    await handle.close()
    await utimes(weights, atime, mtime)
    assert.notEqual(await folderIdentity(copy), demo)
    await cp(join(demoModel, 'model.safetensors'), weights)
    assert.equal(await folderIdentity(copy), demo)
    const config = join(copy, 'generation_config.json')
    await writeFile(config, `${await readFile(config, 'utf8')} `)
    assert.notEqual(await folderIdentity(copy), demo)
    await rm(dir, { recursive: true })
  })

  it('of a large file differs where any 128 KiB of it differ', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'identity-'))
    const file = join(dir, 'model.safetensors')
    await writeFile(file, Buffer.alloc(40 * 2 ** 20))
    const before = await folderIdentity(dir)
    for (const start of [0, 17 * 2 ** 20 + 5, 40 * 2 ** 20 - 128 * 1024]) {
      const handle = await open(file, 'r+')
      await handle.write(Buffer.alloc(128 * 1024, 1), 0, 128 * 1024, start)
      assert.notEqual(await folderIdentity(dir), before)
      await handle.write(Buffer.alloc(128 * 1024), 0, 128 * 1024, start)
      await handle.close()
    }
    assert.equal(await folderIdentity(dir), before)
    await rm(dir, { recursive: true })
  })
})
