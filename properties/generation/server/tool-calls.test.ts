import assert from 'node:assert/strict'
import fc from 'fast-check'
import { type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { rngOf } from '../../../generation/decoding/sampling.js'
import type { EngineInfo } from '../../../generation/engine/engine-types.js'
import { toolFormat, toolsOf } from '../../../generation/server/protocol/tools/tool-choice.js'
import { answerParser, toolSyntaxOf } from '../../../generation/server/protocol/tools/tool-syntax.js'
import { compileGrammar } from '../../../generation/structured/compiled-grammar.js'
import { grammarText } from '../../../generation/structured/response-format.js'
import { tokenTexts } from '../../../generation/structured/token-texts.js'

interface Call {
  readonly name: string
  readonly args: object
}

/** A form of calls: a part of its chat templates, calls as models write them, and the text that a parser leaves of them. */
interface Form {
  readonly template: string
  readonly write: (text: string, calls: readonly Call[]) => string
  readonly hasText: boolean
}

const json = (value: unknown): string => JSON.stringify(value)
const lines = (text: string, calls: readonly string[], separator = '\n'): string =>
  [...(text === '' ? [] : [text]), ...calls].join(separator)

/** Sources: the chat templates of Qwen2.5, InternLM2.5, Mistral 7B v0.3 and Small 3.2, Llama 3.1 and GPT-OSS. */
const formats: Readonly<Record<string, Form>> = {
  Qwen: {
    template: 'tools <tool_call>',
    write: (text, calls) =>
      lines(
        text,
        calls.map(({ name, args }) => `<tool_call>\n{"name": ${json(name)}, "arguments": ${json(args)}}\n</tool_call>`)
      ),
    hasText: true
  },
  InternLM2: {
    template: 'tools <|action_start|><|plugin|>',
    write: (text, calls) =>
      lines(
        text,
        calls.map(
          ({ name, args }) => `<|action_start|><|plugin|>\n{"name": ${json(name)}, "parameters": ${json(args)}}<|action_end|>`
        )
      ),
    hasText: true
  },
  Mistral: {
    template: 'tools [TOOL_CALLS]',
    write: (text, calls) =>
      lines(
        text,
        calls.length === 0 ? [] : [`[TOOL_CALLS]${json(calls.map(({ name, args }) => ({ name, arguments: args })))}`],
        ''
      ),
    hasText: true
  },
  'Mistral with [ARGS]': {
    template: 'tools [TOOL_CALLS][ARGS]',
    write: (text, calls) =>
      lines(
        text,
        calls.map(({ name, args }) => `[TOOL_CALLS]${name}[ARGS]${json(args)}`),
        ''
      ),
    hasText: true
  },
  'Llama 3': {
    template: 'tools {"name": function name, "parameters": dictionary}',
    write: (_, calls) => calls.map(({ name, args }) => `{"name": ${json(name)}, "parameters": ${json(args)}}`).join('; '),
    hasText: false
  },
  'Llama 3 with <|python_tag|>': {
    template: 'tools <|python_tag|>',
    write: (text, calls) =>
      text +
      (calls.length === 0 ? '' : `<|python_tag|>${calls.map(({ name, args }) => json({ name, parameters: args })).join(';')}`),
    hasText: true
  },
  'GPT-OSS': {
    template: 'tools <|channel|>',
    write: (text, calls) =>
      lines(
        '<|channel|>analysis<|message|>We think.<|end|>',
        [
          ...(text === '' ? [] : [`<|channel|>commentary<|message|>${text}<|end|>`]),
          ...calls.map(({ name, args }, i) =>
            i % 2 === 0
              ? `<|channel|>commentary to=functions.${name} <|constrain|>json<|message|>${json(args)}<|call|>`
              : ` to=functions.${name}<|channel|>commentary json<|message|>${json(args)}<|call|>`
          )
        ],
        '<|start|>assistant'
      ),
    hasText: true
  }
}

const parse = (template: string, pieces: readonly string[]) => {
  const parser = answerParser(template, ['paint', 'move.it'])
  const all = [...pieces.map((piece) => parser.push(piece)), parser.end()]
  return {
    text: all.map(({ text }) => text).join(''),
    reasoning: all.map(({ reasoning = '' }) => reasoning).join(''),
    calls: all.flatMap(({ calls }) =>
      calls.map(({ function: f }) => ({ name: f.name, args: JSON.parse(f.arguments) as object }))
    ),
    ids: all.flatMap(({ calls }) => calls.map(({ id }) => id))
  }
}

/** A text cut at the given shares of its length. */
const cut = (text: string, shares: readonly number[]): readonly string[] => {
  const ends = [...shares.map((share) => Math.floor(share * text.length)), text.length].sort((a, b) => a - b)
  return ends.map((end, i) => text.slice(ends[i - 1] ?? 0, end))
}

const shares = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 8 })
const plain = fc.string({ maxLength: 12 }).filter((text) => !/[<[{ ]/.test(text))
const args = fc.dictionary(
  fc.string({ maxLength: 4 }).filter((key) => key !== '__proto__'),
  fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant('; {"a"}; ')),
  { noNullPrototype: true }
)
const calls = fc.array(fc.record({ name: fc.constantFrom('paint', 'move.it'), args }, { noNullPrototype: true }), {
  maxLength: 3
})

describe('tool calls', () => {
  for (const [name, { template, write, hasText }] of Object.entries(formats)) {
    it(`${name}: are found however the text is cut, and the text around them stays`, () => {
      assert.equal(toolSyntaxOf(template)?.name, name.replace(/ with .*/, ''))
      fc.assert(
        fc.property(plain, calls, shares, (text, list, at) => {
          const before = hasText ? text : ''
          const { ids, reasoning, ...parsed } = parse(template, cut(write(before, list), at))
          assert.deepEqual(parsed, { text: before, calls: list })
          assert.equal(new Set(ids).size, list.length)
          if (name === 'GPT-OSS') assert.equal(reasoning, 'We think.')
          if (name.startsWith('Mistral')) for (const id of ids) assert.match(id, /^[\da-z]{9}$/)
        })
      )
    })
  }

  it('a text without calls is the same text, cut anywhere, in every form', () =>
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.values(formats)),
        fc.array(fc.constantFrom('<', '<tool', '_call>', 'x', '\n', ' ', '</tool_call>', '{"name": ', '[TOOL', '<|'), {
          maxLength: 9
        }),
        ({ template }, parts) => {
          const text = `A${parts.join('')}`
          fc.pre(!/<tool_call>[\s\S]*<\/tool_call>/.test(text))
          const { text: shown, calls: found } = parse(template, parts.length === 0 ? [text] : ['A', ...parts])
          assert.deepEqual([shown, found], [text, []])
        }
      )
    ))

  it('an unknown tool, broken JSON and an incomplete call stay text', () => {
    for (const [name, { template, write }] of Object.entries(formats)) {
      if (name === 'GPT-OSS') continue // below
      const unknown = write('', [{ name: 'erase', args: {} }])
      for (const text of [unknown, unknown.replace('erase', 'paint').replace(/\{\}/, '{'), unknown.slice(0, -3)]) {
        const expected = { text, reasoning: '', calls: [], ids: [] }
        assert.deepEqual(parse(template, [text]), expected, name)
        assert.deepEqual(parse(template, [...text]), expected, name)
      }
    }
  })

  it('GPT-OSS: the final channel is the answer; text that continues a message of the prompt is, too', () => {
    const text =
      '<|channel|>analysis<|message|>Hm, <b>.<|end|><|start|>assistant<|channel|>final<|message|>It is <red>.<|return|>'
    const { template } = formats['GPT-OSS']!
    for (const pieces of [[text], [...text]]) {
      const { text: shown, reasoning } = parse(template, pieces)
      assert.deepEqual([shown, reasoning], ['It is <red>.', 'Hm, <b>.'])
    }
    for (const rest of [' and green.', '{"a": 1}', '<', 'x']) assert.equal(parse(template, [...rest]).text, rest)
    assert.deepEqual(parse(template, ['<|channel|>ana']), { text: '', reasoning: '', calls: [], ids: [] })
    const wrong = '<|channel|>commentary to=functions.erase <|constrain|>json<|message|>{}'
    assert.deepEqual(parse(template, [wrong]), { text: '{}', reasoning: '', calls: [], ids: [] })
  })

  it('other formats are refused, and none renders no tools', () => {
    const tools = [{ type: 'function' as const, function: { name: 'paint' } }]
    const request = { messages: [{ role: 'user' as const, content: 'Hi' }], tools }
    const info = (chatTemplate: string) => ({ chatTemplate, supportsTools: true }) as EngineInfo
    for (const template of ['tools', 'tools <tool_call><function=name>'])
      assert.throws(() => toolsOf(request, info(template)), /none of the known forms \(GPT-OSS, Qwen/)
    assert.deepEqual(toolsOf({ ...request, tool_choice: 'none' }, info('tools')), [])
  })

  describe('as grammars', () => {
    let internvl: InternVLCheckpoint
    before(async () => {
      internvl = await load()
    })
    after(() => internvl.dispose())

    const parameters = { type: 'object', properties: { n: { type: 'integer', minimum: 0, maximum: 9 } }, required: ['n'] }
    const tools = ['paint', 'move.it'].map((name) => ({
      type: 'function' as const,
      function: { name, parameters, strict: true }
    }))
    const messages = [{ role: 'user' as const, content: 'Hi' }]

    /** Random texts of a grammar, ended as soon as they may end. */
    const randomTexts = async (format: NonNullable<ReturnType<typeof toolFormat>>, count: number): Promise<readonly string[]> => {
      const { processor, config, generation } = internvl
      const { vocabSize } = config.textConfig
      const eosTokenIds = generation.eosTokenIds ?? []
      const grammar = await compileGrammar(grammarText(format), { tokenizer: processor.tokenizer, vocabSize, eosTokenIds })
      try {
        return Array.from({ length: count }, (_, seed) => {
          let rng = rngOf(seed)
          const ids: number[] = []
          while (ids.length < 400) {
            const words = grammar.allowedAfter(ids)
            const allowed = Array.from({ length: vocabSize }, (_, id) => id).filter((id) => words[id >> 5]! & (1 << (id & 31)))
            if (allowed.some((id) => eosTokenIds.includes(id))) break
            rng = rng.foldIn([ids.length])
            ids.push(allowed[Math.floor(rng.uniform() * allowed.length)]!)
          }
          return processor.decode(ids)
        })
      } finally {
        grammar.dispose()
      }
    }

    for (const name of ['Qwen', 'InternLM2', 'Mistral', 'Llama 3', 'GPT-OSS'])
      it(`${name}: a required call is one call of the tools, for any tokens`, async () => {
        const info = { chatTemplate: formats[name]!.template, supportsTools: true } as EngineInfo
        const format = toolFormat({ messages, tools, tool_choice: 'required' }, info)!
        const names = new Set<string>()
        for (const text of await randomTexts(format, 6)) {
          const { text: rest, calls: found } = parse(info.chatTemplate, [text])
          assert.equal(rest, '')
          assert.equal(found.length, 1, text)
          assert.ok(Number.isInteger((found[0]!.args as { n: number }).n))
          names.add(found[0]!.name)
        }
        assert.equal(names.size, 2)
        const strict = toolFormat({ messages, tools }, info)
        if (strict) assert.deepEqual(await randomTexts(strict, 1), ['']) // an answer without calls is allowed
      })

    it('special tokens of the form have a text in the grammar, others have none', () => {
      const { tokenizer } = internvl.processor
      const id = (token: string) => tokenizer.idOf(token)!
      const { texts } = tokenTexts(tokenizer, ['<IMG_CONTEXT>'])
      assert.deepEqual([texts[id('<IMG_CONTEXT>')], texts[id('<|im_end|>')]], ['<IMG_CONTEXT>', ''])
    })
  })
})
