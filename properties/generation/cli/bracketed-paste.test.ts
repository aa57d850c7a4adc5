import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import fc from 'fast-check'
import { messageOf, pastedLine, withPastedLines } from '../../../generation/cli/bracketed-paste.js'

const [start, end] = ['\u001b[200~', '\u001b[201~']

/** The output for an input that arrives in these chunks. */
const filtered = async (chunks: readonly (string | Buffer)[]): Promise<string> => {
  const input = new PassThrough()
  const output = text(withPastedLines(input))
  for (const chunk of chunks) input.write(chunk)
  input.end()
  return output
}

describe('bracketed paste', () => {
  it('a pasted text is one line, and its message is the text', () =>
    fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom('a', 'é', '😀', '\n', '\t', ' ', '[')), async (characters) => {
        const pasted = characters.join('')
        const line = await filtered([`x${start}${pasted}${end}y\r`])
        assert.ok(!/[\n\t]/.test(line))
        assert.equal(messageOf(line), `x${pasted}y\r`)
      })
    ))

  it('the result does not depend on the chunks in which the input arrives', () =>
    fc.assert(
      fc.asyncProperty(fc.array(fc.nat(60), { maxLength: 8 }), async (cuts) => {
        const bytes = Buffer.from(`one\r${start}two\r\nthree é${end}${start}four${end} five\u001b[A\r`)
        const ends = [0, ...cuts.sort((a, b) => a - b), bytes.length]
        const safe = ends.filter((at) => bytes[at - 1] !== 0x1b || bytes[at] !== 0x5b) // a single escape is the Escape key
        const chunks = safe.slice(1).map((at, i) => bytes.subarray(safe[i], at))
        assert.equal(await filtered(chunks), await filtered([bytes]))
      })
    ))

  it('passes keys through at once, and drops control characters of a pasted text', async () => {
    assert.equal(await filtered(['ab\u001b[A\u0003\t\r']), 'ab\u001b[A\u0003\t\r')
    assert.equal(pastedLine('a\u0003b\u001b[Ac\u007f'), 'ab[Ac')
    const input = new PassThrough()
    const output = withPastedLines(input)
    input.write('\u001b')
    const [key] = (await new Promise((done) => output.once('data', (data) => done([String(data)])))) as [string]
    assert.equal(key, '\u001b')
  })
})
