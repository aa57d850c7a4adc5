import { randomUUID } from 'node:crypto'
import { harmonyParser } from './harmony-parser.js'
import {
  type DelimitedCalls,
  delimitedCallParser,
  makeCallId,
  plainParser,
  type ToolCallParser,
  type WrittenCall
} from './tool-call-parser.js'

/** The form in which a model writes calls of tools. */
export interface ToolSyntax {
  readonly name: string
  /** Whether a chat template, which renders tools, has calls in this form. */
  readonly isIn: (template: string) => boolean
  /** Special tokens of the form. The text of an answer must keep them, and a grammar accepts them. */
  readonly specialTokens: readonly string[]
  /** Text that every call begins with. */
  readonly trigger: string
  /** Text before the arguments of a call, and after. */
  readonly around: (name: string) => readonly [begin: string, end: string]
  readonly parser: (names: readonly string[]) => ToolCallParser
  /** Whether answers without tools need the parser, too. */
  readonly isAlwaysParsed: boolean
}

type CallRecord = Readonly<Record<'name' | 'arguments' | 'parameters', unknown>>

const toWritten = ({ name, arguments: given, parameters }: CallRecord): WrittenCall => ({ name, arguments: given ?? parameters })

/** One call, or a list of calls, as JSON. */
const readJson = (text: string): readonly WrittenCall[] =>
  [JSON.parse(text) as CallRecord | readonly CallRecord[]].flat().map(toWritten)

/** Objects of JSON with semicolons between them; semicolons in texts separate nothing. */
const readJsonList = (text: string): readonly WrittenCall[] => {
  const parts = text.split(';')
  const calls: WrittenCall[] = []
  for (let from = 0, to = 1; to <= parts.length; to++) {
    const part = parts.slice(from, to).join(';')
    try {
      if (part.trim() !== '') calls.push(...readJson(part))
      from = to
    } catch (error) {
      if (to === parts.length) throw error
    }
  }
  return calls
}

/** Mistral's calls: a list as JSON, or `NAME[ARGS]{…}` in later versions, with `[TOOL_CALLS]` between two calls. */
const readMistral = (text: string): readonly WrittenCall[] | undefined => {
  if (text.trimStart().startsWith('[')) return readJson(text)
  return text.split('[TOOL_CALLS]').map((call) => {
    const [, name, json] = /^\s*([\w.-]+)\s*(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(\{[\s\S]*\})\s*$/.exec(call) ?? []
    return { name, arguments: JSON.parse(json ?? '') }
  })
}

/** Mistral's templates accept ids of nine letters and digits only. */
const makeShortId = (): string => randomUUID().replaceAll('-', '').slice(0, 9)

const QWEN = '<tool_call>'
const PLUGIN = '<|action_start|><|plugin|>'
const MISTRAL = '[TOOL_CALLS]'
const PYTHON = '<|python_tag|>'

/** A form of calls between delimiters. */
const delimited = (
  syntax: Omit<ToolSyntax, 'parser' | 'isAlwaysParsed'>,
  form: Omit<DelimitedCalls, 'makeId'>,
  makeId = makeCallId
): ToolSyntax => ({
  ...syntax,
  parser: (names) => delimitedCallParser({ ...form, makeId }, names),
  isAlwaysParsed: false
})

const quoted = (name: string): string => JSON.stringify(name)

/** All known forms; the first that a template has is the model's. */
const syntaxes: readonly ToolSyntax[] = [
  {
    name: 'GPT-OSS',
    isIn: (template) => template.includes('<|channel|>'),
    specialTokens: ['<|channel|>', '<|message|>', '<|constrain|>', '<|start|>', '<|end|>'],
    trigger: '<|channel|>commentary to=functions.',
    around: (name) => [`<|channel|>commentary to=functions.${name} <|constrain|>json<|message|>`, ''],
    parser: harmonyParser,
    isAlwaysParsed: true
  },
  delimited(
    {
      name: 'Qwen', // after NousResearch's Hermes 2 Pro; Qwen3-Coder's XML is another form
      isIn: (template) => template.includes(QWEN) && !template.includes('<function='),
      specialTokens: [QWEN, '</tool_call>'],
      trigger: QWEN,
      around: (name) => [`${QWEN}\n{"name": ${quoted(name)}, "arguments": `, '}\n</tool_call>']
    },
    { start: QWEN, end: '</tool_call>', read: readJson }
  ),
  delimited(
    {
      name: 'InternLM2',
      isIn: (template) => template.includes(PLUGIN),
      specialTokens: ['<|action_start|>', '<|plugin|>', '<|action_end|>'],
      trigger: PLUGIN,
      around: (name) => [`${PLUGIN}\n{"name": ${quoted(name)}, "parameters": `, '}<|action_end|>']
    },
    { start: PLUGIN, end: '<|action_end|>', read: readJson }
  ),
  delimited(
    {
      name: 'Mistral',
      isIn: (template) => template.includes(MISTRAL),
      specialTokens: [MISTRAL, '[ARGS]', '[CALL_ID]'],
      trigger: MISTRAL,
      around: (name) => [`${MISTRAL}[{"name": ${quoted(name)}, "arguments": `, '}]']
    },
    { start: MISTRAL, read: readMistral },
    makeShortId
  ),
  delimited(
    {
      name: 'Llama 3',
      isIn: (template) => template.includes(PYTHON) || /"parameters": /.test(template),
      specialTokens: [PYTHON],
      trigger: '{"name": "',
      around: (name) => [`{"name": ${quoted(name)}, "parameters": `, '}']
    },
    { start: PYTHON, opening: '{', read: readJsonList }
  )
]

/** Names of the known forms. */
export const toolSyntaxNames: readonly string[] = syntaxes.map(({ name }) => name)

/** The form of calls in a chat template; undefined where it has none that is known. */
export const toolSyntaxOf = (template: string): ToolSyntax | undefined => syntaxes.find(({ isIn }) => isIn(template))

/** The form that answers of a request are parsed by; undefined where their text is taken as it is. */
export const parsedSyntax = (template: string, hasTools: boolean): ToolSyntax | undefined => {
  const syntax = toolSyntaxOf(template)
  return hasTools || syntax?.isAlwaysParsed ? syntax : undefined
}

/** A parser of an answer to a request with tools of these names, or without tools. */
export const answerParser = (template: string, names: readonly string[]): ToolCallParser =>
  parsedSyntax(template, names.length > 0)?.parser(names) ?? plainParser()
