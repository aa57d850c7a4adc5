import { valueText } from '../../lib/error.js'
import type { MediaPolicy } from '../../processors/media/media-policy.js'
import { serverMediaPolicy } from '../../processors/media/media-policy.js'
import type { CreateEngineOptions, RequestOptions } from '../engine/engine-types.js'

/** Largest sizes of one request to the server. */
export interface ServerLimits {
  /** Bytes of a request body. Default: 32 MiB. */
  readonly maxBodyBytes?: number
  /** Pixels of an image with all its frames, or of a video's frame. Default: 50 million. */
  readonly maxPixels?: number
  /** Images and videos of a request. Default: 64. */
  readonly maxMedia?: number
  /** Tiles and frames of a request. Default: 256. */
  readonly maxTiles?: number
  /** Frames sampled from one video. Default: 128. */
  readonly maxFrames?: number
  /** Characters of all texts of a request. Default: 500,000. */
  readonly maxCharacters?: number
  /** Seconds for an answer from its request on; the answer then ends as if it had reached `max_tokens`. Default: 600. */
  readonly maxSeconds?: number
  /** Seconds for the headers of a request. Default: 10. */
  readonly headerSeconds?: number
  /** Seconds for a whole request with its body. Default: 60. */
  readonly requestSeconds?: number
}

/** Options of `serve`: those of `createEngine`, and those of the server. */
export interface ServerOptions extends CreateEngineOptions {
  /** Folder of the model or `org/name` of the hub; default: the embedded demo model. */
  readonly model?: string | undefined
  /** Name of the model in requests and answers. Default: the last part of `model`. */
  readonly modelName?: string | undefined
  /** Address to listen on. Default: 127.0.0.1. Another address needs `apiKeys`, or `insecure`. */
  readonly host?: string | undefined
  /** Port; 0 takes a free one. Default: 8000. */
  readonly port?: number | undefined
  /** Keys, one of which a client sends as `Authorization: Bearer …`. Default: none is asked for. */
  readonly apiKeys?: readonly string[] | undefined
  /** Lets a server without keys listen on an address that other machines reach. */
  readonly insecure?: boolean | undefined
  /** Hosts that images and videos may be downloaded from; `*.example.org` stands for every subdomain. Default: none. */
  readonly mediaDomains?: readonly string[] | undefined
  /** Changes of the media policy `serverMediaPolicy`. */
  readonly mediaPolicy?: MediaPolicy | undefined
  /** Origins of web pages that may call the server, such as `https://example.org`, or `*`. Default: none. */
  readonly corsOrigins?: readonly string[] | undefined
  readonly limits?: ServerLimits | undefined
  /** Whether `GET /` serves the page. Default: true. */
  readonly ui?: boolean | undefined
  /** Whether messages and answers are written to the log. Default: false. */
  readonly logPrompts?: boolean | undefined
  /** Level of the log. Default: `info`. */
  readonly logLevel?: 'silent' | 'error' | 'warn' | 'info' | 'debug' | undefined
  /** Receives the lines of the log, JSON each. Default: standard error. */
  readonly logTo?: { readonly write: (line: string) => void } | undefined
  /** Seconds in which accepted requests may end after `close`. Default: 30. */
  readonly drainSeconds?: number | undefined
}

const MIB = 2 ** 20

/** The limits with all defaults. */
export const serverLimits = (limits: ServerLimits = {}): Required<ServerLimits> => {
  const defaults: Required<ServerLimits> = {
    maxBodyBytes: 32 * MIB,
    maxPixels: 50_000_000,
    maxMedia: 64,
    maxTiles: 256,
    maxFrames: 128,
    maxCharacters: 500_000,
    maxSeconds: 600,
    headerSeconds: 10,
    requestSeconds: 60
  }
  for (const [name, value] of Object.entries(limits))
    if (value !== undefined && !(typeof value === 'number' && value > 0 && Object.hasOwn(defaults, name)))
      throw new RangeError(
        `limits.${name}: expected a number above 0 for one of ${Object.keys(defaults).join(', ')}, got ${value}`
      )
  return { ...defaults, ...limits }
}

/** The options of preparation that guard the server; a request cannot change them. */
export const guardedOptions = (options: ServerOptions): RequestOptions => {
  const { maxPixels, maxMedia, maxTiles, maxFrames, maxCharacters } = serverLimits(options.limits)
  const { mediaDomains = [], mediaPolicy = {} } = options
  return {
    mediaPolicy: { ...serverMediaPolicy, domains: mediaDomains, ...mediaPolicy },
    maxPixels,
    limits: { maxMedia, maxTiles, maxFrames, maxCharacters }
  }
}

/** Whether an address is reached from its own machine alone. */
export const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host)

/** Throws a `RangeError` for an address that other machines reach without a key, or for an empty key. */
export const checkExposure = ({ host = '127.0.0.1', apiKeys = [], insecure = false, corsOrigins = [] }: ServerOptions): void => {
  for (const origin of corsOrigins)
    if (origin !== '*' && (!URL.canParse(origin) || new URL(origin).origin !== origin))
      throw new RangeError(`corsOrigins: expected * or an origin such as https://example.org, got ${valueText(origin)}`)
  if (apiKeys.some((key) => key.trim().length < 8)) throw new RangeError('apiKeys: a key has at least 8 characters')
  if (isLoopback(host) || apiKeys.length > 0 || insecure) return
  throw new RangeError(
    `host: ${host} can be reached from other machines, and no API key is set; set a key (--api-key), or allow everyone (--insecure)`
  )
}
