import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'

/** Progress of a download in bytes: of one file and of all files. */
export interface HubProgress {
  readonly file: string
  readonly done: number
  readonly total: number
  readonly allDone: number
  readonly allTotal: number
}

/** Options of functions that may access the hub. Defaults come from the environment variables of Python's huggingface_hub. */
export interface HubOptions {
  /** A branch, a tag or a commit; `main` by default. */
  readonly revision?: string | undefined
  /** A token with read access, or `false` for none; by default `HF_TOKEN`, or else the token file. */
  readonly token?: string | false | undefined
  /** Use the cache without network access; `HF_HUB_OFFLINE` by default. */
  readonly offline?: boolean | undefined
  /** Folder of the cache; by default `HF_HUB_CACHE`, or else `hub` in `HF_HOME`. */
  readonly cacheDir?: string | undefined
  /** URL of the hub; by default `HF_ENDPOINT`, or else the public hub. */
  readonly endpoint?: string | undefined
  /** Milliseconds before the first retry, doubled after each; 1000 by default. */
  readonly backoff?: number | undefined
  /** Aborts the download; the downloaded bytes are kept for the next one. */
  readonly signal?: AbortSignal | undefined
  /** Called as bytes arrive. */
  readonly onDownload?: ((progress: HubProgress) => void) | undefined
  /** Called with warnings, for example that the cache is used without a network. By default `process.emitWarning`. */
  readonly onWarning?: ((line: string) => void) | undefined
  /** @deprecated The name of `onWarning` before 0.2. */
  readonly onRemark?: ((line: string) => void) | undefined
  /** For a model in GGUF: the file of its vision tower; by default the only file named `mmproj` beside it. */
  readonly mmproj?: string | undefined
}

/** `HubOptions` with all defaults applied. Durations are in milliseconds. */
export interface HubSettings {
  readonly revision: string
  readonly token: string | undefined
  /** The origin of the token, and the token file, for error messages. */
  readonly tokenSource: string
  readonly tokenFile: string
  readonly offline: boolean
  readonly cacheDir: string
  readonly endpoint: string
  readonly timeout: number
  readonly backoff: number
  readonly signal: AbortSignal | undefined
  readonly onDownload: (progress: HubProgress) => void
  readonly onWarning: (line: string) => void
}

type Env = Readonly<Record<string, string | undefined>>

const isTrue = (value: string | undefined): boolean => ['1', 'ON', 'YES', 'TRUE'].includes(value?.toUpperCase() ?? '')

/** Expands `~` and `$NAME` in a path like Python's `expanduser` and `expandvars`. */
const expand = (path: string, env: Env): string =>
  path
    .replace(/^~(?=\/|\\|$)/, () => homedir())
    .replace(/\$(?:\{(\w+)\}|(\w+))/g, (all, braced: string | undefined, bare: string | undefined) => {
      return env[braced ?? bare ?? ''] ?? all
    })

/** Source: `huggingface_hub/constants.py` (huggingface_hub 2.4). */
const hubHome = (env: Env): string => expand(env.HF_HOME || join(env.XDG_CACHE_HOME || '~/.cache', 'huggingface'), env)

/** The cache folder of Python's huggingface_hub in the same environment. */
export const hubCache = (env: Env = process.env): string =>
  expand(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(hubHome(env), 'hub'), env)

const findToken = async (given: HubOptions['token'], file: string, env: Env): Promise<readonly [string | undefined, string]> => {
  if (given !== undefined) return [given === false ? undefined : given.trim(), 'the token option']
  if (isTrue(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)) return [undefined, '']
  const variable = ['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN'].find((name) => env[name]?.trim())
  if (variable) return [env[variable]?.trim(), variable]
  return [(await readFile(file, 'utf8').catch(() => '')).trim() || undefined, file]
}

const warn = (line: string): void => process.emitWarning(line, 'HubWarning')

/** Applies the defaults of the environment; `home` is the URL of the public hub. */
export const resolveSettings = async (options: HubOptions, home: string, env: Env = process.env): Promise<HubSettings> => {
  const tokenFile = expand(env.HF_TOKEN_PATH || join(hubHome(env), 'token'), env)
  const [token, tokenSource] = await findToken(options.token, tokenFile, env)
  return {
    revision: options.revision ?? 'main',
    token,
    tokenSource,
    tokenFile,
    offline: options.offline ?? isTrue(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE),
    cacheDir: options.cacheDir ?? hubCache(env),
    endpoint: (options.endpoint || env.HF_ENDPOINT || home).replace(/\/+$/, ''),
    timeout: 1000 * (Number(env.HF_HUB_DOWNLOAD_TIMEOUT) || 10),
    backoff: options.backoff ?? 1000,
    signal: options.signal,
    onDownload: options.onDownload ?? (() => undefined),
    onWarning: options.onWarning ?? options.onRemark ?? warn
  }
}
