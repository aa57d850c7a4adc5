import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { type Issues, issue } from '../../lib/error.js'

/** Whether a text is an http or https address. */
export const isAddress = (text: string): boolean => /^https?:\/\//i.test(text)

/** The bytes in a data URL, base64 or percent-encoded; undefined for another text. Source: RFC 2397. */
export const bytesIn = (text: string): Buffer | undefined => {
  const [head] = /^data:[^,]*,/i.exec(text) ?? []
  if (head === undefined) return undefined
  const body = text.slice(head.length)
  if (/;base64,$/i.test(head)) return Buffer.from(body, 'base64')
  const bytes = Buffer.from(body).toString('latin1') // a character a byte, which those behind a % then are too
  return Buffer.from(
    bytes.replace(/%([\da-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1'
  )
}

/** The path that a text names: itself, or that of a file URL. Errors: `NotFound`, a file URL of no path here. */
export const pathIn = (text: string): E.Either<Issues, string> => {
  if (!/^file:/i.test(text)) return E.right(text)
  return E.tryCatch(
    () => fileURLToPath(text),
    (error): Issues => [issue('NotFound', `${text}: no path on this machine (${(error as Error).message}).`, { path: text })]
  )
}
