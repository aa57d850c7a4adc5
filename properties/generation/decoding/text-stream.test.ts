import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { GenerationStream } from '../../../generation/decoding/prepare-generation.js'
import { streamText, textStream } from '../../../generation/decoding/text-stream.js'

/** A tokenizer whose tokens are bytes, except for one special token without text. */
const special = 256
const bytesDecode = (ids: readonly number[]) =>
  new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(ids.filter((id) => id !== special)))
const encode = (text: string) => [...new TextEncoder().encode(text)]
/** A tokenizer whose tokens are words after a space, which is dropped before the first word, as in SentencePiece. */
const words = ['▁a', 'b', '▁', '▁cd', 'é', '🙂', '.']
const wordsDecode = (ids: readonly number[]) =>
  ids
    .map((id) => words[id]!)
    .join('')
    .replaceAll('▁', ' ')
    .replace(/^ /, '')

const piecesOf = (ids: readonly number[], decode: typeof bytesDecode, stops: readonly string[] = []) => {
  const stream = textStream(decode, stops)
  return [...ids.map(stream.push), stream.end()]
}

const text = fc.string({ unit: 'grapheme', maxLength: 12 })
const someBytes = fc.array(
  fc.oneof(fc.nat(special), fc.integer({ min: 128, max: 255 }), fc.constantFrom(0xf0, 0x9f, 0x99, 0x82, special)),
  {
    maxLength: 60
  }
)

describe('text stream', () => {
  it('the pieces joined are the decoded text, for any bytes', () => {
    fc.assert(fc.property(someBytes, (ids) => assert.equal(piecesOf(ids, bytesDecode).join(''), bytesDecode(ids))))
    fc.assert(
      fc.property(fc.array(fc.nat(words.length - 1)), (ids) =>
        assert.equal(piecesOf(ids, wordsDecode).join(''), wordsDecode(ids))
      )
    )
  })

  it('never emits part of a character', () =>
    fc.assert(
      fc.property(text, (s) => {
        const pieces = piecesOf(encode(s), bytesDecode)
        assert.equal(pieces.join(''), s)
        assert.ok(pieces.every((piece) => !piece.includes('\uFFFD') || s.includes('\uFFFD')))
        assert.ok(pieces.every((piece) => !/\p{Surrogate}/u.test(piece)))
      })
    ))

  it('emits a character at its last byte', () => {
    assert.deepEqual(piecesOf(encode('aé🙂!'), bytesDecode), ['a', '', 'é', '', '', '', '🙂', '!', ''])
  })

  it('ends before the first complete stop string, and never emits part of one', () =>
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('a', 'b', 'é'), { maxLength: 12 }).map((c) => c.join('')),
        fc.array(
          fc.array(fc.constantFrom('a', 'b', 'é'), { minLength: 1, maxLength: 3 }).map((c) => c.join('')),
          { minLength: 1, maxLength: 2 }
        ),
        (s, stops) => {
          const end = [...s].findIndex((_, i) => stops.some((stop) => s.slice(0, i + 1).endsWith(stop))) + 1
          const starts = stops.filter((stop) => s.slice(0, end).endsWith(stop)).map((stop) => end - stop.length)
          const expected = end > 0 ? s.slice(0, Math.min(...starts)) : s
          const pieces = piecesOf(encode(s), bytesDecode, stops)
          assert.equal(pieces.join(''), expected)
        }
      )
    ))

  it('the work grows linearly with the length', () => {
    let decoded = 0
    const counting = (ids: readonly number[]) => {
      decoded += ids.length
      return bytesDecode(ids)
    }
    piecesOf(encode('the same again, '.repeat(100)), counting)
    assert.ok(decoded < 1600 * 6, `${decoded} tokens decoded for 1600`)
    decoded = 0
    piecesOf(new Array(1600).fill(0x80), counting) // bytes that never become a character
    assert.ok(decoded < 1600 * 100, `${decoded} tokens decoded for 1600 broken ones`)
    decoded = 0
    piecesOf(new Array(1600).fill(special), counting)
    assert.ok(decoded < 1600 * 100, `${decoded} tokens decoded for 1600 without text`)
  })

  it('streams each row of a batch and returns the result; leaving early ends the steps', async () => {
    let ended = false
    const rows = [encode('ab'), encode('é.'), []]
    const result = { sequences: rows, finishReasons: rows.map(() => 'length' as const) }
    const steps = async function* (): GenerationStream {
      try {
        for (let i = 0; i < 3; i++) yield { tokens: rows.map((ids) => ids[i]) }
        return result
      } finally {
        ended = true
      }
    }
    const stream = streamText(steps(), bytesDecode)
    const texts = ['', '', '']
    while (true) {
      const { done, value } = await stream.next()
      if (done) {
        assert.equal(value, result)
        break
      }
      value.forEach((piece, row) => {
        texts[row] += piece
      })
    }
    assert.deepEqual(texts, ['ab', 'é.', ''])
    ended = false
    for await (const _ of streamText(steps(), bytesDecode)) break
    assert.ok(ended)
  })
})
