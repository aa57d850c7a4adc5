import fc from 'fast-check'
import type { ContentItem, Messages, Role } from '../../processors/text/messages.js'
import { images } from './images.js'

/** Texts with special tokens of a template: whole, split in two, and among ordinary words. */
export const hostileText = (tokens: readonly string[]): fc.Arbitrary<string> => {
  const halves = tokens.flatMap((token) => [token.slice(0, 3), token.slice(3), `${token}\n`, ` ${token}`])
  const pieces = fc.oneof(fc.constantFrom(...tokens), fc.constantFrom(...halves), fc.string({ unit: 'grapheme', maxLength: 6 }))
  return fc.array(pieces, { maxLength: 6 }).map((parts) => parts.join(''))
}

const item = (text: fc.Arbitrary<string>): fc.Arbitrary<ContentItem> =>
  fc.oneof(
    { weight: 3, arbitrary: text.map((t): ContentItem => ({ type: 'text', text: t })) },
    images(6).map((rgb): ContentItem => ({ type: 'image', image: { ...rgb, channels: 3 } })),
    fc.array(images(6), { minLength: 1, maxLength: 3 }).map((frames): ContentItem => {
      return { type: 'video', frames: frames.map((rgb) => ({ ...rgb, channels: 3 })) }
    })
  )

/** Conversations of up to four turns, with images and videos among the texts. */
export const conversations = (text: fc.Arbitrary<string>): fc.Arbitrary<Messages> =>
  fc.array(
    fc.record({
      role: fc.constantFrom<Role>('system', 'user', 'assistant'),
      content: fc.oneof(text, fc.array(item(text), { minLength: 1, maxLength: 4 }))
    }),
    { minLength: 1, maxLength: 4 }
  )
