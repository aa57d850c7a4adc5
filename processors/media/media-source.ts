import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { type Issues, issue } from '../../lib/error.js'

/** Whether a text is an http or https URL. */
export const isHttpUrl = (text: string): boolean => /^https?:\/\//i.test(text)

/** Bytes of a data URL, base64 or percent-encoded; undefined for other texts. Source: RFC 2397. */
export const dataUrlBytes = (text: string): Buffer | undefined => {
  const [head] = /^data:[^,]*,/i.exec(text) ?? []
  if (head === undefined) return undefined
  const body = text.slice(head.length)
  if (/;base64,$/i.test(head)) return Buffer.from(body, 'base64')
  const bytes = Buffer.from(body).toString('latin1') // one character per byte, as in the percent-encoded parts
  return Buffer.from(
    bytes.replace(/%([\da-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1'
  )
}

/** Local path of a path or file URL. Errors: `NotFound`, a file URL that is not a path on this machine. */
export const localPath = (text: string): E.Either<Issues, string> => {
  if (!/^file:/i.test(text)) return E.right(text)
  return E.tryCatch(
    () => fileURLToPath(text),
    (error): Issues => [issue('NotFound', `${text}: not a path on this machine (${(error as Error).message}).`, { path: text })]
  )
}
