import fc from 'fast-check'
import { parseGrounding } from '../../../generation/grounding.js'
import { parsePipelineInput } from '../../../generation/pipeline-input.js'
import type { Messages } from '../../../processors/text/messages.js'
import { shortTexts, texts, tokens, values } from '../awkward.js'
import { checkedAnswer } from '../calls.js'
import { editJson, type JsonEdit, jsonEdits } from '../edits.js'
import { attempt, Finding, settle } from '../verdict.js'
import { fuzzKind } from './fuzz-kind.js'

type Input =
  | {
      readonly messages: readonly { readonly role: string; readonly content: string }[]
      readonly allowedSpecial: 'all' | readonly string[] | undefined
      readonly answers: boolean
    }
  | { readonly edits: readonly JsonEdit[] }
  | { readonly value: unknown }

/** A conversation whose structure is edited. */
const conversation = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: [{ type: 'text', text: 'Hello' }, { type: 'image', image: 'data:image/png;base64,AAAA' }] },
  { role: 'assistant', content: 'Hi', tool_calls: [{ type: 'function', function: { name: 'f', arguments: {} } }] },
  { role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA' } }, { type: 'video', frames: [] }] }
] // biome-ignore format: one line a message

const roles = fc.oneof({ weight: 8, arbitrary: fc.constantFrom('user', 'user', 'assistant', 'system', 'tool') }, { weight: 1, arbitrary: shortTexts }) // biome-ignore format: one line
const allowedSpecial = fc.oneof(fc.constantFrom<'all' | undefined>(undefined, undefined, 'all'), fc.subarray([...tokens]))

/** Texts of any code units, special tokens and length; conversations of any structure. */
export const promptKind = fuzzKind<Input>({
  name: 'prompt',
  arbitrary: fc.oneof(
    { weight: 6, arbitrary: fc.record({ messages: fc.array(fc.record({ role: roles, content: texts }), { minLength: 1, maxLength: 4 }), allowedSpecial, answers: fc.boolean() }) },
    { weight: 2, arbitrary: fc.record({ edits: jsonEdits(conversation) }) },
    { weight: 1, arbitrary: fc.record({ value: fc.oneof(values, fc.array(values, { maxLength: 3 })) }) }
  ), // biome-ignore format: one line a form
  run: async (input, { internvl }) => {
    const { processor } = internvl
    if ('value' in input) {
      await attempt(() => parsePipelineInput(input.value))
      await attempt(() => settle(processor.encode(input.value as Messages)))
      await settle(processor.encodeBatch([input.value as Messages]))
      return true
    }
    const messages = ('edits' in input ? JSON.parse(editJson(JSON.stringify(conversation), input.edits.filter(({ op }) => op !== 'cut' && op !== 'insert')).replace(/-?\b(NaN|Infinity)\b/g, 'null')) : input.messages) as Messages // biome-ignore format: one line
    const options = 'edits' in input || input.allowedSpecial === undefined ? {} : { allowedSpecial: input.allowedSpecial }
    if ('messages' in input) for (const { content } of input.messages) await attempt(() => parseGrounding(content))
    await attempt(() => settle(async () => processor.render(messages)))
    await attempt(() => settle(processor.encode(messages, options)))
    const { ids } = await settle(processor.encodeBatch([messages], options))
    const text = processor.decode(ids[0]!)
    if (typeof text !== 'string') throw new Finding('error', `decode returned ${typeof text}`)
    if ('messages' in input && input.answers && ids[0]!.length < 250) await checkedAnswer(internvl, messages, { ...options, maxNewTokens: 2 }) // biome-ignore format: one line
    return true
  }
})
