import assert from 'node:assert/strict'
import { cp, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { inspect } from '../../../generation/checkpoint/inspect.js'
import { demoModel } from '../../../generation/checkpoint/load.js'
import { convert } from '../../../generation/checkpoint/save.js'
import { checkAsync } from '../../laws/check.js'
import { readJson } from '../../models/folders.js'

type Spoil = (folder: string) => Promise<unknown>
type Json = Readonly<Record<string, unknown>>

const shard = (i: number) => `model-0000${i}-of-00003.safetensors`
const index = 'model.safetensors.index.json'
const text =
  (name: string, content: string): Spoil =>
  (folder) =>
    writeFile(join(folder, name), content)
const edit =
  (name: string, change: (json: Json) => unknown): Spoil =>
  async (folder) =>
    writeFile(join(folder, name), JSON.stringify(change((await readJson(folder, name)) as Json)))
const removed =
  (name: string): Spoil =>
  (folder) =>
    rm(join(folder, name))

/** Damaged files of a checkpoint folder, and the message of each. */
const errorCases: ReadonlyArray<readonly [file: string, spoil: Spoil, says: RegExp]> = [
  ['config.json', removed('config.json'), /config\.json: no such file/],
  ['config.json', text('config.json', '{"a": '), /config\.json: it is not JSON/],
  [
    'config.json',
    edit('config.json', (json) => ({ ...json, downsample_ratio: 'half' })),
    /downsample_ratio should be a positive/
  ],
  [
    'config.json',
    edit('config.json', (json) => ({ ...json, text_config: { model_type: 'mamba' } })),
    /should be one of qwen2.*"mamba"/
  ],
  ['generation_config.json', text('generation_config.json', '['), /generation_config\.json: cannot be read as JSON/],
  ['generation_config.json', text('generation_config.json', '{"top_p": 7}'), /top_p should be a number above 0 and at most 1/],
  ['tokenizer.json', removed('tokenizer.json'), /no tokenizer\.json/],
  ['tokenizer.json', text('tokenizer.json', '{}'), /tokenizer\.json: model: expected .*, got nothing/],
  ['tokenizer_config.json', text('tokenizer_config.json', 'x'), /tokenizer_config\.json: it is not JSON/],
  ['processor_config.json', removed('processor_config.json'), /no processor_config\.json/],
  [
    'processor_config.json',
    edit('processor_config.json', (json) => ({ ...json, image_seq_length: 0 })),
    /image_seq_length: expected/
  ],
  ['chat_template.jinja', text('chat_template.jinja', '{% for %}'), /chat_template\.jinja: not a Jinja template/],
  [
    index,
    edit(index, (json) => ({ ...json, weight_map: { ...(json.weight_map as Json), x: '../x' } })),
    /weight_map\.x names "\.\.\/x"/
  ],
  [shard(1), removed(shard(1)), /model-00001-of-00003\.safetensors: no such file/],
  [shard(2), (folder) => truncate(join(folder, shard(2)), 100_000), /model-00002-of-00003\.safetensors: the file is cut short/],
  [
    shard(3),
    async (folder) => {
      const bytes = await readFile(join(folder, shard(3)), 'latin1')
      await writeFile(join(folder, shard(3)), bytes.replace('"BF16"', '"BF61"'), 'latin1')
    },
    /unknown dtype "BF61"; known are/
  ]
]

/** True if the messages are undefined: config.json decides whether processor files are required, and cannot be read. */
const isOpen = (chosen: typeof errorCases): boolean => {
  const says = chosen.map(([, , pattern]) => String(pattern)).join()
  return says.includes('not JSON') && says.includes('no processor_config')
}

describe('a folder with several errors', () => {
  let whole: string
  before(async () => {
    whole = join(await mkdtemp(join(tmpdir(), 'errors-')), 'whole')
    await convert(demoModel, whole, { layout: 'hf', dtype: 'bfloat16', shardBytes: 2_000_000 })
  })
  after(() => rm(join(whole, '..'), { recursive: true }))

  it('reports every error, in any of the files', () =>
    checkAsync(
      fc
        .uniqueArray(fc.constantFrom(...errorCases), { selector: ([file]) => file, minLength: 2, maxLength: 4 })
        .filter((chosen) => !isOpen(chosen)),
      async (chosen) => {
        const folder = join(whole, '..', 'spoilt')
        await cp(whole, folder, { recursive: true })
        for (const [, spoil] of chosen) await spoil(folder)
        const { loads, issues } = await inspect(folder)
        await rm(folder, { recursive: true })
        assert.ok(!loads)
        const messages = issues.map(({ message }) => message)
        for (const [, , says] of chosen)
          assert.equal(messages.filter((message) => says.test(message)).length, 1, `${says} once in\n${messages.join('\n')}`)
      },
      40
    ))
})
