import { stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { type Issues, invalid, issue } from '../../lib/error.js'
import { download } from './fetch-media.js'
import { allowedPath, type MediaOptions, shown } from './media-policy.js'

/** Whether a text is an http or https URL. */
export const isHttpUrl = (text: string): boolean => /^https?:\/\//i.test(text)

/** Whether a text has base64's characters alone, of either alphabet, with white space. */
export const isBase64 = (text: string): boolean => /^[\w+/\-\s]*(={1,2}\s*)?$/.test(text)

/**
 * Bytes of a data URL, base64 or percent-encoded; undefined for other texts. Source: RFC 2397. As in Transformers, base64 needs no
 * `;base64`: a file's bytes without percent signs cannot be anything else.
 */
const dataUrlBytes = (text: string): Buffer | undefined => {
  const [head] = /^data:[^,]*,/i.exec(text) ?? []
  if (head === undefined) return undefined
  const body = text.slice(head.length)
  if (/;base64,$/i.test(head) || (body !== '' && isBase64(body))) return Buffer.from(body, 'base64')
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

/** The path or the bytes of an image or video file; error messages use `name`. */
export interface MediaFile {
  readonly name: string
  readonly source: string | Buffer
}

/** A kind of media, as messages call it. */
export type MediaKind = 'image' | 'video'

const NAMES: Readonly<Record<MediaKind, string>> = { image: 'image', video: 'file or folder of frames' }

const missing = (text: string, kind: MediaKind): E.Either<Issues, never> =>
  invalid(
    'NotFound',
    `${shown(text)}: no such ${NAMES[kind]}. It must be a URL that begins with http:// or https://, the path of a file, a data URL, or base64.`,
    { path: shown(text) }
  )

/**
 * Opens a source given as text as Transformers' `load_image` does: an http or https URL is downloaded, a path or file URL is checked,
 * a data URL or bare base64 is decoded. A path may have base64's characters alone, so `isMedia` tells whether decoded bytes are a file of
 * the kind. Errors: the source is not found, not allowed by the policy, or not downloadable.
 */
export const openSource = async (
  text: string,
  kind: MediaKind,
  options: MediaOptions,
  isMedia: (bytes: Buffer) => boolean = () => false
): Promise<E.Either<Issues, MediaFile>> => {
  if (isHttpUrl(text)) {
    const bytes = await download(text, options)()
    return E.isLeft(bytes) ? bytes : E.right({ name: text, source: bytes.right })
  }
  const bytes = dataUrlBytes(text)
  if (bytes) return E.right({ name: 'data URL', source: bytes })
  const path = localPath(text)
  if (E.isLeft(path)) return path
  const allowed = await allowedPath(path.right, options)
  const info = E.isRight(allowed) ? await stat(allowed.right).catch(() => undefined) : undefined
  if (E.isRight(allowed) && info !== undefined) {
    if (info.isDirectory())
      return invalid('NotAFile', `${text}: a folder, not ${kind === 'image' ? 'an' : 'a'} ${kind}.`, { path: text })
    if (!info.isFile()) return invalid('NotAFile', `${text}: not a regular file.`, { path: text })
    return E.right({ name: path.right, source: resolve(allowed.right) })
  }
  const decoded = isBase64(text) ? Buffer.from(text, 'base64') : undefined
  if (decoded && isMedia(decoded)) return E.right({ name: 'base64', source: decoded })
  return E.isLeft(allowed) ? allowed : missing(text, kind)
}
