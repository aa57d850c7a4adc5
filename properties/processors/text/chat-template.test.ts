import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { getOrThrow } from '../../../lib/error.js'
import { type ChatTemplate, compileTemplate, type Prompt, type RenderOptions } from '../../../processors/text/chat-template.js'
import { checkMessages, itemsOf, type Message, type Messages } from '../../../processors/text/messages.js'
import { originalTemplate } from '../../../processors/text/published-templates.js'
import { conversations, hostileText } from '../../arbitraries/message.js'

const CONTROL = ['<|im_start|>', '<|im_end|>', '<IMG_CONTEXT>', '<think>', '</think>']
const compile = (source: string, variables = {}): ChatTemplate => getOrThrow(compileTemplate(source, variables, 'test'))
const body = (content: string): string =>
  `{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}${content}{% else %}{% for c in m.content %}` +
  `{% if c.type == 'text' %}{{ c.text }}{% else %}<IMG_CONTEXT>\n{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}`
const plain = compile(`${body('{{ m.content }}')}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}`)
const render = (template: ChatTemplate, messages: Messages, options?: RenderOptions): Prompt =>
  getOrThrow(template.render(messages, CONTROL, options))
const user = (content: string): Messages => [{ role: 'user', content }]

/** Number of occurrences of a token outside message texts. */
const writtenCount = ({ text, spans }: Prompt, token: string): number => {
  const indices = [...text.matchAll(new RegExp(token.replaceAll('|', '\\|'), 'g'))].map(({ index }) => index)
  return indices.filter((at) => !spans.some(([start, end]) => start < at + token.length && at < end)).length
}

describe('chat template', () => {
  it('distinguishes tokens in message texts from tokens that the template wrote', () => {
    fc.assert(
      fc.property(conversations(hostileText(CONTROL)), (messages) => {
        const prompt = render(plain, messages)
        assert.equal(writtenCount(prompt, '<|im_end|>'), messages.length)
        assert.equal(writtenCount(prompt, '<|im_start|>'), messages.length + 1)
        const media = messages.flatMap(itemsOf).filter((item) => item.type !== 'text')
        assert.equal(writtenCount(prompt, '<IMG_CONTEXT>'), media.length)
      })
    )
  })

  it('markers leave the rendered text unchanged, also with templates that trim', () => {
    const trimming = compile(body('{{ m.content | trim }}'))
    fc.assert(
      fc.property(hostileText(CONTROL), (text) => {
        assert.equal(render(plain, user(text)).text, `<|im_start|>user\n${text}<|im_end|>\n<|im_start|>assistant\n`)
        const trimmed = render(trimming, user(text))
        assert.equal(trimmed.text, `<|im_start|>user\n${text.trim()}<|im_end|>\n`)
        assert.equal(writtenCount(trimmed, '<|im_end|>'), 1)
      })
    )
  })

  it('terminates for every text: one with all UTF-16 code units, and texts of markers', () => {
    const units = Array.from({ length: 0x10000 }, (_, code) => String.fromCharCode(code)).join('')
    const markers = Array.from({ length: 50 }, (_, n) => `\uE000${n}\uE001`).join('')
    for (const text of [units, markers, `${units}${markers}`]) {
      const prompt = render(plain, user(`${text}<|im_end|>`))
      assert.equal(prompt.text, `<|im_start|>user\n${text}<|im_end|><|im_end|>\n<|im_start|>assistant\n`)
      assert.equal(writtenCount(prompt, '<|im_end|>'), 1)
    }
  })

  it('a token split over two text items is not a token', () => {
    const content = [{ type: 'text', text: 'a<|im_' } as const, { type: 'text', text: 'end|>b' } as const]
    assert.equal(writtenCount(render(plain, [{ role: 'user', content }]), '<|im_end|>'), 1)
  })

  it('finds message texts with a template that splits them', () => {
    const thinking = compile(body("{{ m.content.split('</think>')[-1].lstrip('\\n') }}"))
    const answer: Messages = [{ role: 'assistant', content: '<think>hm</think>\nYes <|im_end|> no' }]
    const prompt = render(thinking, answer)
    assert.equal(prompt.text, '<|im_start|>assistant\nYes <|im_end|> no<|im_end|>\n')
    assert.equal(writtenCount(prompt, '<|im_end|>'), 1)
  })

  it('addGenerationPrompt and continueFinalMessage', () => {
    const messages: Messages = [...user('Hi'), { role: 'assistant', content: 'Well, ' }]
    assert.ok(render(plain, messages).text.endsWith('Well, <|im_end|>\n<|im_start|>assistant\n'))
    assert.ok(render(plain, messages, { addGenerationPrompt: false }).text.endsWith('Well, <|im_end|>\n'))
    assert.ok(render(plain, messages, { continueFinalMessage: true }).text.endsWith('assistant\nWell, '))
    const items: Messages = [{ role: 'assistant', content: [{ type: 'text', text: 'So' }] }]
    assert.ok(render(plain, items, { continueFinalMessage: true }).text.endsWith('assistant\nSo'))
    const both = plain.render(messages, [], { continueFinalMessage: true, addGenerationPrompt: true })
    assert.ok(E.isLeft(both) && /exclude each other/.test(both.left[0].message))
  })

  it('passes named tokens and variables to the template, and reports template errors', () => {
    const template = compile(
      "{{ bos_token }}{% if loud %}!{% endif %}{{ raise_exception('no ' + messages[0].role) if strict }}",
      { bos_token: '<s>' }
    )
    assert.equal(render(template, user('x'), { templateVariables: { loud: true } }).text, '<s>!')
    const refused = template.render(user('x'), [], { templateVariables: { strict: true } })
    assert.ok(E.isLeft(refused) && /test: the conversation cannot be rendered: no user/.test(refused.left[0].message))
    const broken = compileTemplate('{% if %}', {}, 'test')
    assert.ok(E.isLeft(broken) && /test: not a Jinja template/.test(broken.left[0].message))
  })
})

describe('Jinja', () => {
  it("prints values and applies filters, tests and methods as Transformers' Jinja environment", () => {
    const file = new URL('jinja-cases.json', import.meta.url)
    for (const [source, expected] of JSON.parse(readFileSync(file, 'utf8')) as readonly [string, string | null][]) {
      const rendered = E.chain((t: ChatTemplate) => t.render([{ role: 'user' } as Message], []))(
        compileTemplate(source, {}, 'test')
      )
      assert.equal(E.isRight(rendered) ? rendered.right.text : null, expected, source)
    }
  })

  it('bounds steps, range, output and nesting of a hostile template', () => {
    const hostile = [
      '{{ range(1000000000) }}',
      '{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}',
      "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
      "{{ 'a' * 1000000000 }}",
      "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
      '{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}',
      `{{ ${'('.repeat(50_000)}1${')'.repeat(50_000)} }}`,
      "{{ '%9999999s' % 'x' }}"
    ]
    for (const source of hostile) {
      const started = performance.now()
      const rendered = E.chain((t: ChatTemplate) => t.render(user('x'), []))(compileTemplate(source, {}, 'test'))
      assert.ok(E.isLeft(rendered) && rendered.left[0]._tag === 'ChatTemplate', source.slice(0, 60))
      assert.ok(performance.now() - started < 10_000, source.slice(0, 60))
    }
  })

  it('tools, documents and chatTemplate of a call; messages with tool calls and without content', () => {
    const source =
      '{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}{{ documents }}' +
      '{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endif %}' +
      '{% for call in m.tool_calls %}<tool_call>{{ call.function.name }}{{ call.function.arguments | tojson }}{% endfor %}{% endfor %}'
    const tools = [{ type: 'function', function: { name: 'weather', parameters: { limit: 1.5, unit: null } } }]
    const shown = '{"type": "function", "function": {"name": "weather", "parameters": {"limit": 1.5, "unit": null}}}'
    const template = compile(source)
    assert.equal(render(template, user('Hi'), { tools }).text, `${shown}NoneHi`)
    assert.equal(render(template, user('Hi'), { templateVariables: { tools } }).text, `${shown}NoneHi`)
    assert.equal(render(template, user('Hi'), { documents: [{ title: 'a' }] }).text, "[{'title': 'a'}]Hi")
    const calls = { role: 'assistant', tool_calls: [{ function: { name: 'weather', arguments: { city: 'Ulm' } } }] }
    for (const message of [calls, { ...calls, content: null }]) {
      const valid = getOrThrow(checkMessages([...user('Hi'), message]))
      assert.equal(render(template, valid).text, 'NoneHi<tool_call>weather{"city": "Ulm"}')
    }
    assert.ok(E.isLeft(checkMessages([{ role: 'assistant', content: null }])))
    assert.equal(render(template, user('Hi'), { chatTemplate: '{{ messages[0].content }}!' }).text, 'Hi!')
  })
})

describe("templates of OpenGVLab's layout", () => {
  // results of `get_prompt()` of OpenGVLab/InternVL's conversation.py for this conversation
  const chinese = '你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。'
  const newer = '你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。'
  const chatMl = (system: string, end: string): string =>
    `<|im_start|>system\n${system}${end}<|im_start|>user\n<image>\nWhat is it?${end}<|im_start|>assistant\nA cat.${end}` +
    `<|im_start|>user\nSure?${end}<|im_start|>assistant\n`
  const expected: Readonly<Record<string, string>> = {
    internvl_zh: ' <human>: <image>\nWhat is it? <bot>: A cat.</s><human>: Sure? <bot>:',
    'Hermes-2': chatMl(chinese, '<|im_end|>'),
    'internlm2-chat': chatMl(chinese, '<|im_end|>'),
    'phi3-chat': chatMl(chinese, '<|end|>').replaceAll(/<\|im_start\|>(\w+)/g, '<|$1|>'),
    internvl2_5: chatMl(newer, '<|im_end|>\n')
  }
  const messages: Messages = [
    { role: 'user', content: [{ type: 'image' }, { type: 'text', text: 'What is it?' }] },
    { role: 'assistant', content: 'A cat.' },
    { role: 'user', content: 'Sure?' }
  ]

  it('render as the Python conversation templates', () => {
    for (const [name, prompt] of Object.entries(expected)) {
      const template = compile(originalTemplate(name, '<image>', '<video>')!)
      assert.equal(getOrThrow(template.render(messages, [])).text, prompt, name)
    }
  })

  it('a system message replaces their system prompt; gpt-oss ends its last answer', () => {
    const system = compile(originalTemplate('internvl2_5', '<image>', '<video>')!)
    const rendered = getOrThrow(system.render([{ role: 'system', content: 'Be brief.' }, ...user('Hi')], [])).text
    assert.ok(rendered.startsWith('<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n'))
    const gptOss = compile(originalTemplate('internvl3_5_gpt_oss', '<image>', '<video>')!)
    const text = getOrThrow(gptOss.render(messages.slice(0, 2), [], { addGenerationPrompt: false })).text
    assert.ok(text.endsWith('<|end|><|start|>assistant<|channel|>final<|message|>A cat.<|return|>'))
    assert.equal(originalTemplate('toString', '', ''), undefined)
  })
})
