import assert from 'node:assert/strict'
import { cp, readdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { demoModel, load } from '../../../generation/checkpoint/load.js'
import { convert, save } from '../../../generation/checkpoint/save.js'
import { folderIdentity } from '../../../generation/evaluate/folder-identity.js'
import { commitFile, finishCommit, writeCommit } from '../../../lib/safetensors/commit.js'
import { inFolder } from '../../models/folders.js'

describe('a folder of several files', () => {
  /** Pid of no process. */
  const pid = 2 ** 22 + 1
  const temporary = (name: string) => `.${name}.${pid}.tmp`

  it('killed at any rename while another model replaces it, is the old model before the commit and the new one after', () =>
    inFolder(async (folder) => {
      const next = join(folder, 'next')
      const demo = await load()
      const options = { config: demo.config, params: demo.params, dtype: 'float32', processorFilesFrom: demo.dir } as const
      await save(next, { ...options, shardBytes: 4e6 }) // the old model is one file, the new one shards with an index
      demo.dispose()
      const names = await readdir(next)
      assert.ok(names.length > 4, names.join(', '))
      const [old, expected] = [await folderIdentity(demoModel), await folderIdentity(next)]
      for (let renamed = -1; renamed <= names.length; renamed++) {
        const target = join(folder, `target${renamed}`)
        await cp(demoModel, target, { recursive: true })
        for (const name of names) await cp(join(next, name), join(target, temporary(name)))
        if (renamed >= 0) {
          await writeCommit(target, {
            files: Object.fromEntries(names.map((name) => [name, temporary(name)])),
            replacesWeights: true
          })
          for (const name of names.slice(0, renamed)) await rename(join(target, temporary(name)), join(target, name))
        }
        const internvl = await load(target)
        internvl.dispose()
        assert.equal(await folderIdentity(target), renamed < 0 ? old : expected, `after ${renamed} renames`)
        assert.ok(!(await readdir(target)).includes(commitFile))
      }
    }))

  it('is finished by the next writer too, and a write leaves neither marker nor temporary files', () =>
    inFolder(async (folder) => {
      await cp(demoModel, folder, { recursive: true })
      await cp(join(demoModel, 'config.json'), join(folder, temporary('config.json')))
      await writeCommit(folder, { files: { 'config.json': temporary('config.json') }, replacesWeights: false })
      await convert(demoModel, folder, { layout: 'original', dtype: 'float32', force: true })
      const names = await readdir(folder)
      assert.deepEqual(names.filter((name) => name.startsWith('.')), []) // biome-ignore format: one line
      ;(await load(folder)).dispose()
    }))

  it('with a marker from elsewhere renames nothing outside its temporary files, and says so', () =>
    inFolder(async (folder) => {
      await cp(demoModel, folder, { recursive: true })
      const before = await readdir(folder)
      for (const files of [
        { '../x': '.x.1.tmp' },
        { 'config.json': 'tokenizer.json' },
        { 'config.json': '../.config.json.1.tmp' },
        { 'config.json': '.config.json.1.tmp/../x' }
      ]) {
        await writeFile(join(folder, commitFile), JSON.stringify({ files, replacesWeights: true }))
        const result = await finishCommit(folder)()
        assert.ok(E.isLeft(result) && result.left[0]._tag === 'CommitUnfinished', JSON.stringify(files))
      }
      assert.deepEqual((await readdir(folder)).filter((name) => name !== commitFile).sort(), before.sort())
      await assert.rejects(load(folder), /replacement of its files was interrupted/)
    }))
})
