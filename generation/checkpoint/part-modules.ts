import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { errorText, InternVLError, issue } from '../../lib/error.js'
import { isRecord } from '../../lib/plain-object.js'
import type { PartFamily } from '../../models/config/model-config.js'

/** Kinds of modules for `custom_parts`, or a JavaScript module, by path or URL, whose default export is one kind or a list. */
export type PartsOption = readonly PartFamily[] | string | URL

const isFamily = (value: unknown): value is PartFamily =>
  isRecord(value) && typeof value.type === 'string' && typeof value.build === 'function'

const refuse = (file: string | URL, why: string): never => {
  throw new InternVLError([issue('PartModule', `${file}: ${why}`, { file: `${file}` })])
}

/** The kinds of an option. Throws an `InternVLError` for a module that cannot be imported, or exports something else. */
export const partFamilies = async (parts: PartsOption | undefined): Promise<readonly PartFamily[]> => {
  if (parts === undefined) return []
  if (typeof parts !== 'string' && !(parts instanceof URL)) return parts
  const isUrl = parts instanceof URL || /^(file|data):/.test(parts)
  const url = isUrl ? `${parts}` : pathToFileURL(resolve(parts)).href
  const imported: unknown = await import(url).catch((error) => refuse(parts, `it cannot be imported (${errorText(error)})`))
  const found: readonly unknown[] = [(imported as { readonly default?: unknown }).default].flat()
  return found.every(isFamily) ? found : refuse(parts, 'its default export should be { type, build } or a list of them')
}
