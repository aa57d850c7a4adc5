import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { getOrThrow, InputError, InternVLError, type Issues, orThrow } from '../../lib/error.js'
import { tf } from '../../lib/tf.js'
import { loadProcessor, type PrepareOptions, type Processor, type Prompt } from '../../processors/processor.js'
import { type ContentItem, itemsOf, type Messages } from '../../processors/text/messages.js'
import { conversations, hostileText } from '../arbitraries/message.js'
import { cases, demo, imagePath } from './cases.js'

const wrong = async <A>(task: TaskEither<Issues, A>): Promise<string> => {
  const result = await task()
  return E.isLeft(result) ? result.left.map(({ message }) => message).join('\n') : 'no error'
}
const user = (...content: readonly ContentItem[]): Messages => [{ role: 'user', content }]
const text = (content: string) => ({ type: 'text', text: content }) as const
const image = (name = 'rgb.png') => ({ type: 'image', path: imagePath(name) }) as const

/** Templates, and rows of [template, messages, prompt, ids]; the prompt is null where the template refuses the messages. */
interface RoleCases {
  readonly templates: Readonly<Record<string, string>>
  readonly rows: readonly (readonly [string, Messages, string | null, readonly number[] | null])[]
}

describe('processor', () => {
  let processor: Processor
  let context: number
  const rows = async (batch: readonly Messages[], options?: PrepareOptions) => {
    const inputs = await orThrow(processor.prepare(batch, options))
    const ids = (await inputs.inputIds.array()) as number[][]
    const mask = (await inputs.attentionMask.array()) as number[][]
    inputs.dispose()
    return { ...inputs, ids, mask, unpadded: ids.map((row, i) => row.filter((_, j) => mask[i]![j] === 1)) }
  }
  before(async () => {
    processor = await orThrow(loadProcessor(demo))
    context = processor.tokenizer.idOf('<IMG_CONTEXT>')!
  })

  it("prompts, ids, masks and pixels equal Transformers'", async () => {
    for (const { options, batch, backend: imageBackend, ...expected } of cases.chats) {
      const messages = batch.map((row) =>
        row.map(({ role, content }) => {
          if (typeof content === 'string') return { role, content }
          return {
            role,
            content: content.map((i) => ({
              ...i,
              ...(i.path ? { path: imagePath(i.path) } : { frames: i.frames?.map(imagePath) })
            }))
          }
        })
      ) as unknown as readonly Messages[]
      const { max_patches: maxPatches, crop_to_patches: cropToPatches, do_normalize: doNormalize } = options
      const given = Object.entries({ maxPatches, cropToPatches, doNormalize, imageBackend }).filter(([, v]) => v !== undefined)
      const inputs = await orThrow(processor.prepare(messages, Object.fromEntries(given)))
      assert.deepEqual(inputs.prompts, expected.prompts)
      assert.deepEqual(await inputs.inputIds.array(), expected.input_ids)
      assert.deepEqual(await inputs.attentionMask.array(), expected.attention_mask)
      const pixels = inputs.pixelValues!
      assert.deepEqual(pixels.shape, expected.shape)
      const mean = pixels.mean([2, 3])
      const worst = (got: tf.Tensor, want: readonly number[]): number =>
        Math.max(...got.dataSync().map((v, i) => Math.abs(v - want[i]!)))
      assert.ok(worst(mean, expected.mean.flat()) < 1e-4)
      const values = (await pixels.array()) as number[][][][]
      const samples = values.flatMap((t) =>
        t.flatMap((c) => c.filter((_, y) => y % 37 === 0).flatMap((row) => row.filter((_, x) => x % 41 === 0)))
      )
      assert.ok(Math.max(...samples.map((v, i) => Math.abs(v - expected.samples[i]!))) < 1e-5)
      mean.dispose()
      inputs.dispose()
    }
  })

  it('the number of image tokens is tiles times tokens per tile, for any message text', async () => {
    const { imageSeqLength, image: tiling } = processor.config
    const hostile = hostileText(processor.tokenizer.addedTokens.map(({ content }) => content))
    const size = { width: tiling.size.width / 4, height: tiling.size.height / 4 } // small tiles of one token
    await fc.assert(
      fc.asyncProperty(conversations(hostile), async (messages) => {
        fc.pre(messages.every((m) => m.role !== 'user' || itemsOf(m).some((i) => i.type !== 'text' || i.text.trim() !== '')))
        const before = tf.memory().numTensors
        const inputs = await rows([messages], { maxPatches: 4, size })
        assert.equal(tf.memory().numTensors, before)
        const tiles = inputs.numPatches.reduce((a, b) => a + b, 0)
        assert.equal(inputs.ids[0]!.filter((id) => id === context).length, (tiles * imageSeqLength) / 16)
        assert.equal(inputs.pixelValues?.shape[0] ?? 0, tiles)
        const media = messages.flatMap(itemsOf).filter(({ type }) => type !== 'text')
        assert.equal(inputs.numPatches.length, media.length)
        assert.equal(await orThrow(processor.countTokens(messages, { maxPatches: 4, size })), inputs.ids[0]!.length)
      }),
      { numRuns: 60 }
    )
  })

  it('a batch equals its rows one by one, padded on the left or right', async () => {
    const batch = [
      user(image(), text('What is it?')),
      user(text('Hello')),
      user(text('one'), image('palette.gif'), image('1x1.png'))
    ]
    const together = await rows(batch, { maxPatches: 2 })
    const alone = await Promise.all(batch.map((row) => rows([row], { maxPatches: 2 })))
    assert.deepEqual(
      together.unpadded,
      alone.map(({ ids }) => ids[0])
    )
    assert.deepEqual(
      together.numPatches,
      alone.flatMap(({ numPatches }) => numPatches)
    )
    assert.deepEqual(together.mask[1]!.at(-1), 1)
    const right = await rows(batch, { maxPatches: 2, paddingSide: 'right' })
    assert.deepEqual(right.unpadded, together.unpadded)
    assert.deepEqual([right.mask[1]![0], right.mask[1]!.at(-1)], [1, 0])
  })

  it('promptIds are the unpadded rows of inputIds, and dispose frees all tensors', async () => {
    const before = tf.memory().numTensors
    const batch = [user(image(), text('What is it?')), user(text('Hello'))]
    const inputs = await orThrow(processor.prepare(batch, { maxPatches: 2 }))
    assert.deepEqual(inputs.promptIds, (await rows(batch, { maxPatches: 2 })).unpadded)
    assert.deepEqual(inputs.promptIds, (await orThrow(processor.encodeBatch(batch, { maxPatches: 2 }))).ids)
    inputs.dispose()
    assert.equal(tf.memory().numTensors, before)
  })

  it('a batch may have videos of different lengths; a message may have images and videos', async () => {
    const frames = ['rgb.png', 'grey.png', 'rgb.jpg', 'palette.png'].map(imagePath)
    const video = (n: number) => ({ type: 'video', frames: frames.slice(0, n) }) as const
    const { numPatches, unpadded } = await rows([user(video(2), image(), text('?')), user(video(4), text('?'))], {
      maxPatches: 1
    })
    assert.deepEqual(numPatches, [2, 1, 4])
    assert.match(processor.decode(unpadded[0]!), /Frame1: <img>(<IMG_CONTEXT>)+<\/img>\nFrame2: <img>.*<\/img>\n<img>/)
    assert.deepEqual((await rows([user(video(4), text('?'))], { numFrames: 2 })).numPatches, [2])
    assert.match(await wrong(processor.prepare([user(video(2), text('?'))], { numFrames: 3 })), /exceeds `total_num_frames=2`/)
  })

  it('special tokens in message texts are tokens only where allowedSpecial lists them; grounding tokens by default', async () => {
    const ref = processor.tokenizer.idOf('<ref>')!
    const count = async (options: PrepareOptions, id: number): Promise<number> =>
      (await rows([user(text('Find <ref>the cat</ref>.<|im_end|>'))], options)).ids[0]!.filter((i) => i === id).length
    const end = processor.tokenizer.idOf('<|im_end|>')!
    assert.deepEqual([await count({}, ref), await count({}, end)], [1, 1])
    assert.deepEqual([await count({ allowedSpecial: [] }, ref), await count({ allowedSpecial: [] }, end)], [0, 1])
    assert.deepEqual(
      [await count({ allowedSpecial: ['<ref>', '</ref>'] }, ref), await count({ allowedSpecial: ['<ref>'] }, end)],
      [1, 1]
    )
    assert.deepEqual([await count({ allowedSpecial: 'all' }, ref), await count({ allowedSpecial: 'all' }, end)], [1, 2])
  })

  it('empty turns, and roles that only a template knows, are rendered and encoded as by Transformers', async () => {
    const file = new URL('text/role-cases.json', import.meta.url)
    const { templates, rows } = JSON.parse(readFileSync(file, 'utf8')) as RoleCases
    for (const [name, messages, prompt, ids] of rows) {
      const options = { chatTemplate: templates[name]! }
      const rendered = processor.render(messages, options)
      assert.equal(E.isRight(rendered) ? rendered.right : null, prompt, `${name}: ${JSON.stringify(messages)}`)
      if (prompt === null) continue
      const encoded = await orThrow(processor.encodeBatch([messages], options))
      assert.deepEqual(encoded.ids[0], ids, `${name}: ${JSON.stringify(messages)}`)
    }
    const hostile = ['user<|im_end|>', '', ' ', 'a b', '<|im_start|>', 'x'.repeat(65), 7, null, undefined]
    for (const role of hostile)
      assert.match(
        await wrong(processor.prepare([[{ role, content: 'x' } as never]])),
        /role: expected .* word that the chat template knows, got /
      )
  })

  it('conversations in two steps, renderPrompt and encodeText, have the ids of encodeBatch: typed special tokens stay text', async () => {
    const control = ['<|im_start|>', '<|im_end|>', '<IMG_CONTEXT>', '<video>', '</think>', '<ref>']
    const ids = async (task: TaskEither<Issues, { readonly ids: readonly (readonly number[])[] }>) => (await orThrow(task)).ids
    await fc.assert(
      fc.asyncProperty(fc.array(hostileText(control), { minLength: 1, maxLength: 4 }), fc.boolean(), async (texts, withImage) => {
        const messages = texts.flatMap((typed, i): Messages => (i % 2 === 0 ? user(...(withImage ? [image()] : []), text(typed)) : [{ role: 'assistant', content: typed }])) // biome-ignore format: one line
        const images = messages.flatMap(itemsOf).flatMap((item) => (item.type === 'image' ? [item.path!] : []))
        const prompt = getOrThrow(processor.renderPrompt(messages))
        assert.equal(prompt.text, getOrThrow(processor.render(messages)))
        const whole = await ids(processor.encodeBatch([messages], { maxPatches: 1 }))
        assert.deepEqual(await ids(processor.encodeText({ text: [prompt], images }, { maxPatches: 1 })), whole)
      })
    )
    const typed = user(text('a<|im_end|>b'))
    const prompt = getOrThrow(processor.renderPrompt(typed))
    const end = processor.tokenizer.idOf('<|im_end|>')
    const ends = async (value: string | Prompt, options?: PrepareOptions): Promise<number> =>
      (await ids(processor.encodeText({ text: [value] }, options)))[0]!.filter((id) => id === end).length
    assert.deepEqual([await ends(prompt), await ends(prompt.text), await ends(prompt, { allowedSpecial: 'all' })], [1, 2, 2])
    assert.equal(await ends({ ...prompt, text: `${prompt.text}Yes<|im_end|>` }), 2)
    for (const spans of [[[0, 1e9, false]], [[5, 2, false]], [[0, 3, false], [2, 4, false]], 'x', [null]]) // biome-ignore format: one line
      assert.match(
        await wrong(processor.prepareText({ text: [{ text: 'abcdef', spans } as never] })),
        /text\[0\]: expected a rendered text/
      )
    assert.match(await wrong(processor.prepareText({ text: [null as never] })), /text\[0\]: expected a rendered text/)
  })

  it('rendered prompts with images give the same inputs as conversations', async () => {
    const batch = [user(image(), text('a')), user(image('palette.gif'), text('b'))]
    const prompts = batch.map((row) => getOrThrow(processor.render(row)))
    const images = ['rgb.png', 'palette.gif'].map(imagePath)
    const [a, b] = [await orThrow(processor.prepareText({ text: prompts, images })), await orThrow(processor.prepare(batch))]
    assert.deepEqual(await a.inputIds.array(), await b.inputIds.array())
    assert.deepEqual([...a.pixelValues!.dataSync()], [...b.pixelValues!.dataSync()])
    a.dispose()
    b.dispose()
    const few = await wrong(processor.prepareText({ text: prompts, images: images.slice(1) }))
    assert.match(few, /number of image placeholders in the prompt \(2\) does not match the number of images \(1\)/)
  })

  it('refuses input beyond the limits with an InputError, before it is tokenized or decoded', async () => {
    const refusal = async (messages: Messages, options?: PrepareOptions): Promise<string> => {
      const started = performance.now()
      const error = await orThrow(processor.prepare([messages], options)).catch((e: unknown) => e)
      assert.ok(error instanceof InputError, String(error))
      assert.ok(performance.now() - started < 1000)
      return error.message
    }
    assert.match(
      await refusal(user(text('x'.repeat(10 ** 6)))),
      /1000000 characters, more than the limit of 500000 \(limits\.maxCharacters\)/
    )
    assert.match(await refusal(user(text('hello')), { limits: { maxCharacters: 4 } }), /5 characters, more than the limit of 4/)
    assert.match(await refusal([...user(text('a')), ...user(text('b'))], { limits: { maxMessages: 1 } }), /2 messages/)
    assert.match(await refusal(user(image(), image(), text('a')), { limits: { maxMedia: 1 } }), /2 images and videos/)
    assert.match(await refusal(user(image()), { limits: { maxTiles: 0 } }), /tiles and frames, more than the limit of 0/)
    const video = { type: 'video', frames: [imagePath('rgb.png'), imagePath('rgb.png')] } as const
    assert.match(await refusal(user(video), { limits: { maxFrames: 1 } }), /2 frames of a video; sample fewer with numFrames/)
    assert.match(await refusal(user(image()), { maxPatches: 20_000 }), /maxPatches: expected a whole number from 1 to 1024/)
    assert.match(await refusal(user(image()), { size: 20_000 }), /size: expected whole pixels from 1 to 4096/)
    assert.match(await refusal(user(image('none.png'))), /no such image/)
    const long = await orThrow(processor.prepareText({ text: ['x'.repeat(600_000)] })).catch((e: unknown) => e)
    assert.ok(long instanceof InputError && /600000 characters/.test(long.message))
    const missing = await orThrow(loadProcessor(join(tmpdir(), 'nowhere'))).catch((e: unknown) => e)
    assert.ok(missing instanceof InternVLError && !(missing instanceof InputError))
  })

  it('reports all errors of a call', async () => {
    const bad = await wrong(
      processor.prepare([[{ role: 'a robot', content: [{ type: 'sound' }] }] as unknown as Messages, [{ role: 'user' }] as never])
    )
    assert.match(bad, /batch\[0\]\[0\]: role: expected system, developer, .* got "a robot"/)
    assert.match(bad, /batch\[0\]\[0\]\.content\[0\]: expected an item of type .*, got "sound"/)
    assert.match(bad, /batch\[1\]\[0\]: content must be text or a list of items/)
    const missing = await wrong(processor.prepare([user(image('no.png'), image('none.png'), { type: 'image' }, text('?'))]))
    assert.match(
      missing,
      /no\.png: no such image.*none\.png: no such image.*messages\[0\]\.content\[2\]: an image item without a source/s
    )
    const options = await wrong(processor.prepare([user(image())], { minPatches: 3, maxPatches: 2, size: 50, resample: 9 }))
    assert.match(options, /size: a tile of 50 x 50.*minPatches=3 is more than maxPatches=2.*resample/s)
    assert.match(await wrong(processor.prepare([[]])), /the conversation is empty/)
    assert.match(await wrong(processor.prepare([])), /batch is empty/)
    assert.match(await wrong(processor.prepare(['hello' as never])), /messages: expected a list of messages, got string/)
  })
})

describe('loadProcessor', () => {
  let dir: string
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'checkpoint-'))
  })
  after(() => rmSync(dir, { recursive: true }))

  /** The demo checkpoint's files with some removed, some written. */
  const folder = (name: string, remove: readonly string[], write: Readonly<Record<string, unknown>>): string => {
    const path = join(dir, name)
    const isKept = (file: string): boolean => !file.endsWith('.safetensors') && !remove.some((r) => file.endsWith(r))
    cpSync(demo, path, { recursive: true, filter: isKept })
    for (const [file, value] of Object.entries(write))
      writeFileSync(join(path, file), typeof value === 'string' ? value : JSON.stringify(value))
    return path
  }
  const json = (name: string) => JSON.parse(readFileSync(join(demo, name), 'utf8'))
  const messages = user(image(), text('What is it?'))
  const prompt = async (path: string): Promise<string> => getOrThrow((await orThrow(loadProcessor(path))).render(messages))

  it('finds the chat template in every file that may contain it', async () => {
    const template = readFileSync(join(demo, 'chat_template.jinja'), 'utf8')
    const expected = await prompt(demo)
    const config = json('tokenizer_config.json')
    const fileSets: readonly Readonly<Record<string, unknown>>[] = [
      { 'chat_template.json': { chat_template: template } },
      { 'tokenizer_config.json': { ...config, chat_template: template } },
      { 'tokenizer_config.json': { ...config, chat_template: [{ name: 'tools', template: '' }, { name: 'default', template }] } } // biome-ignore format: one line a place
    ]
    for (const [i, files] of fileSets.entries()) assert.equal(await prompt(folder(`template-${i}`, ['.jinja'], files)), expected)
    assert.equal(await prompt(folder('published-template', ['.jinja'], {})), expected)
    const turns = (name: string) => readFileSync(join(demo, name), 'utf8').replaceAll('<|im_', '<|turn_')
    const renamedTokens = { 'tokenizer.json': turns('tokenizer.json'), 'tokenizer_config.json': turns('tokenizer_config.json') }
    assert.match(await wrong(loadProcessor(folder('no-template', ['.jinja'], renamedTokens))), /no chat_template\.jinja/)
  })

  it('pads on the side that the files of the tokenizer name, else on the left', async () => {
    const sided = (files: object) => ({ ...json('tokenizer.json'), ...files })
    const right = { 'tokenizer_config.json': { ...json('tokenizer_config.json'), padding_side: 'right' } }
    const direction = { 'tokenizer.json': sided({ padding: { direction: 'Right' } }) }
    const batch = [user(text('Hi')), user(text('Name a color, please.'))]
    for (const [i, [files, first]] of (
      [
        [{}, 0],
        [right, 1],
        [direction, 1]
      ] as const
    ).entries()) {
      // biome-ignore format: one line
      const { prepare } = await orThrow(loadProcessor(folder(`padding-${i}`, [], files)))
      const { inputIds, attentionMask } = await orThrow(prepare(batch))
      const [mask] = (await attentionMask.array()) as number[][]
      assert.deepEqual([mask!.at(0), mask!.at(-1)], [first, 1 - first])
      tf.dispose([inputIds, attentionMask])
    }
  })

  it('a tokenizer.json says alone which tokens begin and end a text', async () => {
    const files = { 'tokenizer_config.json': { ...json('tokenizer_config.json'), add_bos_token: true, add_eos_token: true } }
    const { tokenizer } = await orThrow(loadProcessor(folder('affixes', [], files)))
    assert.deepEqual(tokenizer.encode('x'), (await orThrow(loadProcessor(demo))).tokenizer.encode('x'))
  })

  it('of several chat templates the one of processor_config.json counts, then chat_template.json, then chat_template.jinja', async () => {
    const named = (name: string) => ({ chat_template: `${name} <IMG_CONTEXT>` })
    const both = { 'chat_template.json': named('json'), 'tokenizer_config.json': { ...json('tokenizer_config.json'), ...named('tokenizer') } } // biome-ignore format: one line
    const all = { ...both, 'processor_config.json': { ...json('processor_config.json'), ...named('processor') } }
    assert.match(await prompt(folder('three-templates', [], all)), /^processor /)
    assert.match(await prompt(folder('two-templates', [], both)), /^json /)
    const { 'chat_template.json': _, ...last } = both
    assert.equal(await prompt(folder('jinja-template', [], last)), await prompt(demo))
  })

  it("uses the template named by config.json where the folder's template ignores images", async () => {
    const config = {
      architectures: ['InternVLChatModel'],
      template: 'internvl2_5',
      force_image_size: 112,
      vision_config: { patch_size: 14 }
    }
    const textOnly = "{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}"
    const files = {
      'config.json': config,
      'tokenizer_config.json': { ...json('tokenizer_config.json'), chat_template: textOnly }
    }
    const path = folder('original', ['processor_config.json', '.jinja'], files)
    assert.match(
      await prompt(path),
      /^<\|im_start\|>system\n你是书生.*<\|im_end\|>\n<\|im_start\|>user\n<IMG_CONTEXT>\nWhat is it\?/
    )
    assert.equal((await orThrow(loadProcessor(path))).config.imageSeqLength, 16)
  })

  it('builds a tokenizer from vocab.json and merges.txt', async () => {
    const { model, added_tokens: added } = json('tokenizer.json')
    const merges = ['#version: 0.2', ...model.merges.map((pair: string | string[]) => [pair].flat().join(' '))].join('\n')
    const config = {
      ...json('tokenizer_config.json'),
      added_tokens_decoder: Object.fromEntries(added.map(({ id, ...token }: { id: number }) => [id, token]))
    }
    const files = { 'vocab.json': model.vocab, 'merges.txt': `${merges}\n`, 'tokenizer_config.json': config }
    const { tokenizer } = await orThrow(loadProcessor(folder('vocabulary', ['tokenizer.json'], files)))
    for (const [source, ids] of cases.tokens) assert.deepEqual(tokenizer.encode(source), ids, source)
    const other = { ...files, 'tokenizer_config.json': { tokenizer_class: 'InternLM2Tokenizer' } }
    const issue = await wrong(loadProcessor(folder('other', ['tokenizer.json'], other)))
    assert.match(issue, /vocab\.json is not enough for a InternLM2Tokenizer/)
  })

  it("tokens that the template writes are tokens in the assistant's messages and text in those of the user", async () => {
    const tokenizerJson = json('tokenizer.json')
    const added = ['<think>', '</think>'].map((content, i) => ({
      ...tokenizerJson.added_tokens[0],
      id: 433 + i,
      content,
      special: false
    }))
    const template = readFileSync(join(demo, 'chat_template.jinja'), 'utf8').replace(
      "message['role'] + '\n'}}",
      "message['role'] + '\n'}}{% if message.reasoning %}<think>{{ message.reasoning }}</think>{% endif %}"
    )
    const path = folder('thinking', [], {
      'tokenizer.json': { ...tokenizerJson, added_tokens: [...tokenizerJson.added_tokens, ...added] },
      'chat_template.jinja': template
    })
    const processor = await orThrow(loadProcessor(path))
    const conversation = (content: string): Messages => [
      { role: 'user', content: `Say ${content}` },
      { role: 'assistant', content: `<think>hm</think>Yes ${content}` },
      { role: 'user', content }
    ]
    const { ids } = await orThrow(processor.encodeBatch([conversation('<think>')]))
    assert.equal(ids[0]!.filter((id) => id === 433).length, 2) // the assistant's two; three of the user stay text
    assert.equal(ids[0]!.filter((id) => id === 434).length, 1)
    const special = await orThrow(processor.encodeBatch([conversation('<|im_end|><IMG_CONTEXT>')]))
    assert.equal(special.ids[0]!.filter((id) => id === 422).length, 3)
    assert.equal(special.visuals.length, 0)
    const prefill = [...user(text('Hi')), { role: 'assistant', content: '<think>so' }] as const
    const open = await orThrow(processor.encodeBatch([prefill], { continueFinalMessage: true }))
    assert.equal(open.ids[0]!.filter((id) => id === 433).length, 1)
  })

  it('reports all errors of a folder', async () => {
    assert.match(await wrong(loadProcessor(join(dir, 'nowhere'))), /nowhere: no tokenizer\.json/)
    const broken = folder('broken', [], { 'processor_config.json': '{', 'tokenizer_config.json': '[' })
    assert.match(
      await wrong(loadProcessor(broken)),
      /processor_config\.json: it is not JSON.*tokenizer_config\.json: it is not JSON/s
    )
    const names = { ...json('tokenizer_config.json'), context_image_token: '<nope>', model_specific_special_tokens: {} }
    assert.match(
      await wrong(loadProcessor(folder('no-token', [], { 'tokenizer_config.json': names }))),
      /tokenizer\.json: no token <nope>/
    )
  })
})
