import assert from 'node:assert/strict'
import { cp, open, rm, symlink, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { demoModel, load } from '../../generation/checkpoint/load.js'
import { MAX_SMALL_FILE, readSmallText } from '../../lib/files.js'
import { inFolder } from '../models/folders.js'

const names = ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json', 'processor_config.json']

describe('a small file', () => {
  it('above the limit, or a device, is an error before a byte is read', () =>
    inFolder(async (folder) => {
      const file = join(folder, 'a.json')
      await (await open(file, 'w')).close()
      await truncate(file, MAX_SMALL_FILE + 1) // a sparse file
      await assert.rejects(readSmallText(file), { code: 'EFBIG' })
      const device = join(folder, 'zero.json')
      await symlink('/dev/zero', device)
      await assert.rejects(readSmallText(device), { code: 'EINVAL' })
      await assert.rejects(readSmallText(join(folder, 'none')), { code: 'ENOENT' })
    }))

  for (const name of names)
    it(`${name} that is a link to /dev/zero is an error of load that names the file`, () =>
      inFolder(async (folder) => {
        await cp(demoModel, folder, { recursive: true })
        await rm(join(folder, name))
        await symlink('/dev/zero', join(folder, name))
        await assert.rejects(load(folder), new RegExp(name.replace('.', '\\.')))
      }))
})
