import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'

/** How far a download is, in bytes: of one file and over all files that are fetched. */
export interface HubProgress {
  readonly file: string
  readonly done: number
  readonly total: number
  readonly allDone: number
  readonly allTotal: number
}

/** What every function that may ask the hub takes; what is left out comes from the variables that Python's huggingface_hub reads. */
export interface HubOptions {
  /** A branch, a tag or a commit; `main` unless given. */
  readonly revision?: string | undefined
  /** A token that may read the repository, or `false` for none; `HF_TOKEN`, else the token file, unless given. */
  readonly token?: string | false | undefined
  /** Ask nobody, use what is cached; `HF_HUB_OFFLINE` unless given. */
  readonly offline?: boolean | undefined
  /** Folder of the cache; `HF_HUB_CACHE`, else `hub` in `HF_HOME`, unless given. */
  readonly cacheDir?: string | undefined
  /** Address of the hub; `HF_ENDPOINT`, else the public one, unless given. */
  readonly endpoint?: string | undefined
  /** Milliseconds before the first new attempt, doubled after each; 1000 unless given. */
  readonly backoff?: number | undefined
  /** Ends the download; what has arrived stays for the next one. */
  readonly signal?: AbortSignal | undefined
  /** Told as bytes arrive. */
  readonly onDownload?: ((progress: HubProgress) => void) | undefined
  /** Told what a person should know: that the cache is used for want of a network, that the hub asks to wait. A warning of Node's unless given. */
  readonly onRemark?: ((line: string) => void) | undefined
}

/** `HubOptions` with nothing left open. Milliseconds. */
export interface Settings {
  readonly revision: string
  readonly token: string | undefined
  /** Where the token is from, and the file where it would be looked for: for sentences about it. */
  readonly tokenSource: string
  readonly tokenFile: string
  readonly offline: boolean
  readonly cacheDir: string
  readonly endpoint: string
  readonly timeout: number
  readonly backoff: number
  readonly signal: AbortSignal | undefined
  readonly onDownload: (progress: HubProgress) => void
  readonly onRemark: (line: string) => void
}

type Env = Readonly<Record<string, string | undefined>>

const isTrue = (value: string | undefined): boolean => ['1', 'ON', 'YES', 'TRUE'].includes(value?.toUpperCase() ?? '')

/** `~` and `$NAME` in a path, as Python's `expanduser` and `expandvars` write them out. */
const expand = (path: string, env: Env): string =>
  path
    .replace(/^~(?=\/|\\|$)/, () => homedir())
    .replace(/\$(?:\{(\w+)\}|(\w+))/g, (all, braced: string | undefined, bare: string | undefined) => {
      return env[braced ?? bare ?? ''] ?? all
    })

/** Source: `huggingface_hub/constants.py` (huggingface_hub 2.4). */
export const hubHome = (env: Env): string => expand(env.HF_HOME || join(env.XDG_CACHE_HOME || '~/.cache', 'huggingface'), env)

/** The cache that Python's huggingface_hub uses under the same environment. */
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

/** Options completed from the environment; `home` is the address of the hub where none is set. */
export const settle = async (options: HubOptions, home: string, env: Env = process.env): Promise<Settings> => {
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
    onRemark: options.onRemark ?? warn
  }
}
