import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { cp, mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type AssembleOptions, assemble } from '../../../generation/assemble/assemble.js'
import { demoModel } from '../../../generation/checkpoint/load.js'
import { InternVLError } from '../../../lib/error.js'
import { inFolder, readJson } from '../../models/folders.js'

const part = (name: string): string => join(fileURLToPath(new URL('./parts', import.meta.url)), name)

/** The messages with which parts are refused; nothing is written then. */
const refusal = async (options: Omit<AssembleOptions, 'out'>, folder: string): Promise<string> => {
  const out = join(folder, 'out')
  const messages = await assemble({ ...options, out }).then(
    () => assert.fail('it should have failed'),
    (error) => {
      assert.ok(error instanceof InternVLError, String(error))
      return error.message
    }
  )
  assert.equal(existsSync(out), false)
  return messages.replaceAll(folder, 'F').replaceAll(`${part('')}/`, '')
}

/** A copy of a part with other fields in its config.json. */
const changed = async (folder: string, name: string, fields: Readonly<Record<string, unknown>>): Promise<string> => {
  const to = join(folder, name)
  await cp(part(name), to, { recursive: true })
  await writeFile(join(to, 'config.json'), JSON.stringify({ ...(await readJson(to)), ...fields }))
  return to
}

const parts = { vision: part('dinov2'), decoder: part('qwen2') }

describe('assemble refuses', () => {
  const refused = (title: string, options: (folder: string) => Promise<Omit<AssembleOptions, 'out'>>, message: RegExp | string) =>
    it(title, () =>
      inFolder(async (folder) => {
        const actual = await refusal(await options(folder), folder)
        if (typeof message === 'string') assert.equal(actual, message)
        else assert.match(actual, message)
      })
    )

  refused(
    'a decoder that is a vision-language model',
    async () => ({ ...parts, decoder: demoModel }),
    /models\/demo\/config\.json: model_type "internvl" is a vision-language model; give the folder of a text decoder alone$/
  )
  refused(
    'a folder that is no vision tower',
    async () => ({ ...parts, vision: part('qwen2') }),
    'qwen2/config.json: model_type is "qwen2"; a vision tower is an InternVL folder, or internvl_vision, intern_vit_6b, dinov2, vit'
  )
  refused(
    'a decoder of another architecture',
    async (folder) => ({ ...parts, decoder: await changed(folder, 'qwen2', { model_type: 'gemma2' }) }),
    /^F\/qwen2\/config\.json: model_type should be one of qwen2, .*; it is "gemma2"$/
  )
  refused(
    'DINOv2 with SwiGLU',
    async (folder) => ({ ...parts, vision: await changed(folder, 'dinov2', { use_swiglu_ffn: true }) }),
    'F/dinov2/config.json: use_swiglu_ffn should be false: InternViT has no SwiGLU; it is true'
  )
  refused(
    'a size of tiles without whole image tokens',
    async () => ({ ...parts, imageSize: 30 }),
    'imageSize: 30 is not a multiple of 8, two patches of 4 pixels; for example 32'
  )
  refused(
    'a projector of other hidden sizes',
    async () => ({ ...parts, projector: demoModel }),
    /models\/demo: its projector maps features of 160 to 160, and these parts need features of 16 to 32; leave projector out for a fresh one$/
  )
  refused(
    'hidden sizes that are not those of the weights',
    async (folder) => ({ ...parts, vision: await changed(folder, 'dinov2', { hidden_size: 24 }) }),
    /^F\/dinov2: model\.vision_tower\.embeddings\.cls_token: expected shape \[1,1,24\], got \[1,1,16\]\n/
  )
  refused(
    'folders without weights or tokenizer, both errors together',
    async (folder) => {
      const [vision, decoder] = [await changed(folder, 'dinov2', {}), await changed(folder, 'qwen2', {})]
      await Promise.all([rm(join(vision, 'model.safetensors')), rm(join(decoder, 'tokenizer.json'))])
      return { vision, decoder }
    },
    /^F\/dinov2: no weights; .*\nF\/qwen2: no tokenizer\.json; is this a checkpoint folder\?$/
  )
  refused(
    'a decoder without a chat template and without the tokens of ChatML',
    async (folder) => {
      const decoder = await changed(folder, 'llama', {})
      await rm(join(decoder, 'chat_template.jinja'))
      return { ...parts, decoder }
    },
    'F/llama: it has no chat template; give one with --chat-template (chatTemplate: a Jinja source)'
  )
  refused(
    'a GGUF file of a vision tower',
    async () => ({ ...parts, decoder: fileURLToPath(new URL('../gguf/files/qwen2/mmproj.gguf', import.meta.url)) }),
    /mmproj\.gguf: it holds a vision tower, not a language model/
  )
  refused(
    'a vision tower in GGUF',
    async () => ({ ...parts, vision: 'mmproj.gguf' }),
    'mmproj.gguf: the vision tower is taken from a folder; only the decoder may be a GGUF file'
  )
  refused('a GGUF file that is not there', async () => ({ ...parts, decoder: 'nowhere.gguf' }), 'nowhere.gguf: no such file')
  refused('a folder that is not there', async () => ({ ...parts, vision: './nowhere' }), './nowhere: no such folder')

  it('a target that is not empty, or a source', () =>
    inFolder(async (folder) => {
      const out = join(folder, 'out')
      await mkdir(out)
      await writeFile(join(out, 'notes.txt'), 'mine')
      await assert.rejects(assemble({ ...parts, out }), /out: the folder is not empty; /)
      await assert.rejects(assemble({ ...parts, out: parts.vision }), /dinov2: the target is the source folder; /)
    }))
})
