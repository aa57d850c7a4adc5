import { createHash } from 'node:crypto'
import type { CreateEngineOptions } from '../engine/engine-types.js'
import { folderIdentity } from '../evaluate/folder-identity.js'

/** Options of loading that change the answers of a model. */
export type IdentityOptions = Pick<
  CreateEngineOptions,
  'adapter' | 'dtype' | 'quantize' | 'activations' | 'kvCache' | 'imageBackend' | 'parts' | 'defaults'
>

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

/** Hash of a value as JSON, in 16 hexadecimal digits. */
export const shortHash = (value: unknown): string => sha256(JSON.stringify(value)).slice(0, 16)

/** Folder of a model; without a name that of the demo model. */
const modelDir = async (model: string | undefined): Promise<string> => model ?? (await import('../checkpoint/load.js')).demoModel // loaded here because TensorFlow.js loads slowly

/**
 * Identity of a model by content, in 16 hexadecimal digits: its files, those of its adapter, and the options that change its answers. Modules
 * of `parts` count by their path.
 */
export const modelIdentity = async (
  model: string | undefined,
  { adapter, dtype, quantize, activations, kvCache, imageBackend, parts, defaults }: IdentityOptions
): Promise<string> =>
  shortHash([
    await folderIdentity(await modelDir(model)),
    adapter === undefined ? null : await folderIdentity(adapter),
    { dtype, quantize, activations, kvCache, imageBackend, parts, defaults } // JSON has no undefined: identities without an option stay
  ])
