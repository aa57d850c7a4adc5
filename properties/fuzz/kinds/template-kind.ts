import fc from 'fast-check'
import { loadProcessor } from '../../../processors/processor.js'
import type { Messages } from '../../../processors/text/messages.js'
import { numbers, shortTexts, values } from '../awkward.js'
import { demoText } from '../base-files.js'
import { copyWith } from '../fixture.js'
import { attempt, settle } from '../verdict.js'
import { fuzzKind } from './fuzz-kind.js'

interface Input {
  readonly source: string
  readonly variables: Readonly<Record<string, unknown>>
}

/** Pieces of chat templates: blocks, filters, tests and functions of Jinja, correct and incorrect. */
const pieces = [
  '{% for m in messages %}', '{% endfor %}', '{% if m.role == "user" %}', '{% else %}', '{% elif x %}', '{% endif %}', "{{ m['content'] }}",
  '{{ m.content }}', '{{ messages }}', '{{ messages | tojson }}', '{{ messages[0] }}', '{{ messages[99].content }}', '{% set ns = namespace(a=0) %}',
  '{% set ns.a = ns.a + 1 %}', '{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}', '{% macro g(x) %}{{ x }}{% endmacro %}{{ g(2) }}',
  '{% for i in range(1000000000) %}a{% endfor %}', '{% for i in range(2000) %}{% for j in range(2000) %}{{ j }}{% endfor %}{% endfor %}',
  '{{ "a" * 1000000000 }}', '{{ ("a" * 1000) * 1000000 }}', '{{ [0] * 100000000 }}', '{{ 1 / 0 }}', '{{ 2 ** 10000 }}', '{{ 10 // 0 }}', '{{ 5 % 0 }}',
  "{{ raise_exception('refused') }}", '{{ strftime_now("%Y") }}', '{{ x.y.z }}', '{{ none.a }}', '{{ bos_token }}', '{{ tools }}', '{{ "%s" | format(1) }}',
  '{{ messages | length }}', '{{ messages | map(attribute="role") | list }}', '{{ messages | selectattr("role", "equalto", "user") | list }}',
  '{{ messages | join(",") }}', '{{ "a,b".split(",") }}', '{{ "a".__class__ }}', '{{ messages.__proto__ }}', '{{ messages.constructor.constructor("return 1")() }}',
  '{{ messages | tojson(indent=1000000) }}', '{{ "abc"[::-1] }}', '{{ messages[::0] }}', '{{ messages[1:] }}', '{% break %}', '{% continue %}', '{% generation %}',
  '{% endgeneration %}', '{% call f() %}', '{% filter upper %}', '{% endfilter %}', '{%- -%}', '{{- -}}', '{# a #}', '{#', '{%', '{{', '}}', '%}', '{{ 1 +', '<IMG_CONTEXT>',
  '<video>', '{{ add_generation_prompt }}', '{{ "a" ~ 1 ~ none }}', '{{ loop.index }}', '{{ [1, 2, 3] | sum }}', '{{ {"a": 1}.items() }}', '{{ "x" | indent(1000000000) }}',
  '{{ cycler("a") }}', '{{ lipsum(1000) }}', '{{ dict(a=1) }}', '{{ "a" | replace("", "aaaaaaaa") }}', '{{ "a" | center(1000000000) }}', '{{ range(0, 10, 0) }}'
] as const // biome-ignore format: a table

/** Templates that nest one construct deeply. */
const deep = fc
  .constantFrom('(', '[', '{% if 1 %}', '{{ not ', '{% for i in [1, 2] %}', '{{ -')
  .chain((unit) =>
    fc
      .integer({ min: 10, max: 20_000 })
      .map((depth) => (unit.startsWith('{') ? unit.repeat(depth) : `{{ ${unit.repeat(depth)} }}`))
  )

const edited = fc.tuple(fc.nat(), fc.nat(8), fc.oneof(fc.constantFrom(...pieces), shortTexts)).map(([at, length, text]) => {
  const source = demoText('chat_template.jinja')
  const from = at % source.length
  return source.slice(0, from) + text + source.slice(from + length)
})

const composed = fc.array(fc.oneof({ weight: 5, arbitrary: fc.constantFrom<string>(...pieces) }, { weight: 1, arbitrary: shortTexts }), { minLength: 1, maxLength: 8 }).map((parts) => parts.join('')) // biome-ignore format: one line

const messages: Messages = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: [{ type: 'text', text: 'What is <|im_end|> this?' }] },
  { role: 'assistant', content: 'A square.' },
  { role: 'user', content: 'And now?' }
]

/** Chat templates: their syntax, and rendering without an end or without a limit. */
export const templateKind = fuzzKind<Input>({
  name: 'template',
  arbitrary: fc.record({
    source: fc.oneof({ weight: 5, arbitrary: composed }, { weight: 4, arbitrary: edited }, { weight: 1, arbitrary: deep }),
    variables: fc.dictionary(
      fc.constantFrom('x', 'tools', 'messages', 'enable_thinking', 'bos_token'),
      fc.oneof(numbers, values),
      { maxKeys: 2 }
    )
  }),
  run: async ({ source, variables }, fixture) => {
    const dir = copyWith(fixture, fixture.single, { 'chat_template.jinja': source })
    const processor = await settle(loadProcessor(dir))
    await attempt(() => settle(async () => processor.render(messages, { templateVariables: variables })))
    await attempt(() => settle(processor.encode(messages.slice(0, 3))))
    await settle(processor.encodeBatch([messages], { templateVariables: variables }))
    return true
  }
})
