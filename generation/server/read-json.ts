import { isAscii } from 'node:buffer'
import { setImmediate as otherRequests } from 'node:timers/promises'
import { RequestError } from './server-errors.js'

/** Bytes from which on other requests have a turn between the steps of reading a body. */
const LARGE = 1 << 20

/** Largest size of a body that is read to its end before it is refused, as a multiple of the limit. */
const DISCARDED = 4

const tooLarge = (maxBytes: number): RequestError =>
  new RequestError(413, `The body is larger than ${maxBytes} bytes.`, null, 'body_too_large')

/** Reads a body and keeps none of it: many clients read the answer only after they have sent all. */
const discard = async ({ body }: Request): Promise<void> => {
  if (body) for await (const _ of body);
}

const checkHeaders = (headers: Headers): void => {
  if (!/^application\/([\w.+-]+\+)?json(;|$)/i.test(headers.get('content-type') ?? ''))
    throw new RequestError(415, 'The body must be JSON: send "Content-Type: application/json".', null, 'not_json')
  const encoding = headers.get('content-encoding') ?? 'identity'
  if (encoding.toLowerCase() !== 'identity')
    throw new RequestError(415, 'The body must not be compressed: send no "Content-Encoding".', null, 'wrong_encoding')
}

/** The bytes of a body. Throws a `RequestError` where there are more than `maxBytes`. */
const readBytes = async (request: Request, maxBytes: number): Promise<Buffer> => {
  const announced = Number(request.headers.get('content-length') ?? 0)
  if (announced > maxBytes) {
    if (announced <= DISCARDED * maxBytes) await discard(request)
    throw tooLarge(maxBytes)
  }
  const parts: Uint8Array[] = []
  let size = 0
  if (request.body)
    for await (const part of request.body as unknown as AsyncIterable<Uint8Array>) {
      size += part.length
      if (size > maxBytes) throw tooLarge(maxBytes)
      parts.push(part)
    }
  return Buffer.concat(parts)
}

const utf8 = new TextDecoder()

/**
 * The JSON of a request's body. Other requests have turns between the steps of a large body. Throws a `RequestError` for another type,
 * a compressed body, more than `maxBytes`, and text that is no JSON.
 */
export const readJson = async (request: Request, maxBytes: number): Promise<unknown> => {
  checkHeaders(request.headers)
  const bytes = await readBytes(request, maxBytes)
  const pause = bytes.length < LARGE ? () => Promise.resolve() : () => otherRequests()
  await pause()
  const text = isAscii(bytes) ? bytes.toString('latin1') : utf8.decode(bytes) // the first is much faster
  await pause()
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new RequestError(400, `body: Malformed JSON: ${(error as Error).message.slice(0, 200)}`, null, 'invalid_json')
  } finally {
    await pause()
  }
}
