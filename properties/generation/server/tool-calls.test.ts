import assert from 'node:assert/strict'
import fc from 'fast-check'
import { toolCallParser } from '../../../generation/server/protocol/tool-calls.js'

const tools = [{ type: 'function', function: { name: 'paint' } }] as const
const call = (name: string, args: object): string => `<tool_call>\n${JSON.stringify({ name, arguments: args })}\n</tool_call>`

const parse = (pieces: readonly string[]) => {
  const parser = toolCallParser([...tools])
  const all = [...pieces.map((piece) => parser.push(piece)), parser.end()]
  return {
    text: all.map(({ text }) => text).join(''),
    calls: all.flatMap(({ calls }) => calls.map((found) => [found.function.name, JSON.parse(found.function.arguments)]))
  }
}

/** A text cut at the given shares of its length. */
const cut = (text: string, shares: readonly number[]): readonly string[] => {
  const ends = [...shares.map((share) => Math.floor(share * text.length)), text.length].sort((a, b) => a - b)
  return ends.map((end, i) => text.slice(ends[i - 1] ?? 0, end))
}

describe('tool calls', () => {
  const plain = fc.string({ maxLength: 12 }).filter((text) => !text.includes('<') && text.trim() === text)
  const args = fc.dictionary(
    fc.string({ maxLength: 4 }).filter((key) => key !== '__proto__'),
    fc.oneof(fc.string(), fc.integer(), fc.boolean()),
    { noNullPrototype: true }
  )

  it('are found however the text is cut, and the text around them stays', () =>
    fc.assert(
      fc.property(
        plain,
        fc.array(args, { maxLength: 3 }),
        fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 8 }),
        (before, list, shares) => {
          const json = list.filter((given) => !JSON.stringify(given).includes('</tool_call>'))
          const text = [before, ...json.map((given) => call('paint', given))].filter((part) => part !== '').join('\n')
          assert.deepEqual(parse(cut(text, shares)), { text: before, calls: json.map((given) => ['paint', given]) })
        }
      )
    ))

  it('a text without calls is the same text, cut anywhere', () =>
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('<', '<tool', '_call>', 'x', '\n', ' ', '</tool_call>'), { maxLength: 9 }),
        (parts) => {
          const text = parts.join('')
          fc.pre(!/<tool_call>[\s\S]*<\/tool_call>/.test(text))
          assert.deepEqual(parse(parts), { text, calls: [] })
        }
      )
    ))

  it('an unknown tool, broken JSON and an incomplete call stay text', () => {
    for (const text of [call('erase', {}), '<tool_call>\n{"name": \n</tool_call>', '<tool_call>\n{"name": "paint"']) {
      assert.deepEqual(parse([text]), { text, calls: [] })
      assert.deepEqual(parse([...text]), { text, calls: [] })
    }
  })
})
