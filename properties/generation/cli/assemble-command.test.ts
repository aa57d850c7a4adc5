import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { assembleCommand } from '../../../generation/cli/commands/assemble-command.js'
import { inFolder, readJson } from '../../models/folders.js'

const part = (name: string): string => fileURLToPath(new URL(`../assemble/parts/${name}`, import.meta.url))

const run = (...options: readonly string[]) =>
  assembleCommand()
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .parseAsync(['node', 'internvl', '--vision', part('dinov2'), '--decoder', part('phi3'), ...options])

describe('internvl assemble', () => {
  it('writes a folder with the options of the flags', () =>
    inFolder(async (folder) => {
      const out = join(folder, 'out')
      await run('--out', out, '--image-size', '32', '--max-patches', '2', '--dtype', 'float16', '--seed', '3')
      const [config, processor] = [await readJson(out), await readJson(out, 'processor_config.json')]
      assert.deepEqual([config.dtype, config.image_seq_length], ['float16', 16])
      assert.equal((processor.image_processor as Record<string, unknown>).max_patches, 2)
    }))

  it('refuses a template that is not there, and numbers that are none, before anything is written', () =>
    inFolder(async (folder) => {
      const out = join(folder, 'out')
      await assert.rejects(
        run('--out', out, '--chat-template', join(folder, 'x.jinja')),
        /--chat-template .*x\.jinja: it cannot be read/
      )
      await assert.rejects(run('--out', out, '--seed', '-1'), /"-1" is not a whole number from 0/)
      await assert.rejects(run(), /required option '--out <folder>' not specified/)
      assert.equal(existsSync(out), false)
    }))
})
