import * as E from 'fp-ts/lib/Either.js'
import { type Issues, issue, validateAll, valueText } from '../../lib/error.js'
import type { Module } from '../../lib/module.js'
import { replaceModules } from '../../lib/replace-modules.js'
import { type Fields, isJson, type Json, record } from '../config/config-fields.js'
import type { CustomPart, CustomParts, InternVLConfig, PartFamily } from '../config/model-config.js'

/** Parses `custom_parts` of config.json: `{ "model.multi_modal_projector": { "type": "mine", …settings } }`. */
export const parseCustomParts = (f: Fields): CustomParts | undefined => {
  const parts = Object.entries(f.maybe('custom_parts', record) ?? {}).flatMap(([path, part]) => {
    if (isJson(part) && typeof part.type === 'string') {
      const { type, ...settings } = part
      return [[path, { type, settings }] as const]
    }
    f.note('custom_parts', `an object with a "type" for each path; that of ${path} has none`)
    return []
  })
  return parts.length > 0 ? Object.fromEntries(parts) : undefined
}

/** `custom_parts` of config.json; undefined for a model without any. */
export const customPartsJson = (parts: CustomParts | undefined): Json | undefined =>
  parts && Object.fromEntries(Object.entries(parts).map(([path, { type, settings }]) => [path, { type, ...settings }]))

/** The configuration with the kinds of its custom parts. Errors: `PartUnknown` for each kind that is not among `families`. */
export const withFamilies = (
  config: InternVLConfig,
  families: readonly PartFamily[],
  file: string
): E.Either<Issues, InternVLConfig> => {
  const { customParts } = config
  if (!customParts) return E.right(config)
  const found = Object.entries(customParts).map(([path, part]): E.Either<Issues, readonly [string, CustomPart]> => {
    const family = part.family ?? families.find(({ type }) => type === part.type)
    const message = `${file}: custom_parts: ${path} is ${valueText(part.type)}, a module of the program that saved the folder; give the module with --parts (parts: [{ type: ${valueText(part.type)}, build }])`
    return family ? E.right([path, { ...part, family }]) : E.left([issue('PartUnknown', message, { path, actual: part.type })])
  })
  return E.map((parts: readonly (readonly [string, CustomPart])[]) => ({ ...config, customParts: Object.fromEntries(parts) }))(
    validateAll(found)
  )
}

/**
 * A module with the custom parts of a configuration at their paths. `prefix` is the path of the module in the model, with a dot; parts
 * elsewhere are left out. Throws a `RangeError` for a part whose kind is not known, or a path without a module.
 */
export const withCustomParts = <P, F>(module: Module<P, F>, config: InternVLConfig, prefix = ''): Module<P, F> => {
  const modules = Object.entries(config.customParts ?? {}).flatMap(([path, { type, settings, family }]) => {
    if (!path.startsWith(prefix)) return []
    if (!family) throw new RangeError(`customParts: ${path}: the kind ${valueText(type)} is not known; load with parts`)
    return [[path.slice(prefix.length), family.build(config, settings)] as const]
  })
  return modules.length > 0 ? replaceModules(module, Object.fromEntries(modules)) : module
}
