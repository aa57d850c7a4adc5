import { buildParams } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import { bindModel, type InternVLParams } from '../../models/checkpoint/load-model.js'
import type { Json } from '../../models/config/config-fields.js'
import type { CustomParts, PartFamily } from '../../models/config/model-config.js'
import { isWithin, modelFor } from '../../models/families.js'
import { checkpointOf, type InternVLCheckpoint } from './load.js'

/** A module for a place in the model: its kind, and its settings, which config.json keeps. */
export interface Replacement {
  readonly part: PartFamily
  readonly settings?: Json
}

/** The value at a path of a parameter tree; undefined where there is none. */
const valueAt = (params: unknown, path: string): unknown =>
  path.split('.').reduce<unknown>((tree, key) => (tree as Record<string, unknown> | undefined)?.[key], params)

/**
 * The model with other modules at some paths, with fresh parameters of `seed` for these; all other parameters are shared with `internvl`.
 * `save` writes the modules' kinds and settings to config.json, and `load` with `parts` opens the folder. `dispose` of the result frees the
 * fresh parameters only. Throws a `RangeError` for a path without a module.
 *
 * `replaceParts(internvl, { 'model.multi_modal_projector': { part: perceiver, settings: { queries: 16 } } })`
 */
export const replaceParts = (
  internvl: InternVLCheckpoint,
  replacements: Readonly<Record<string, Replacement>>,
  { seed = 0 }: { readonly seed?: number } = {}
): InternVLCheckpoint => {
  const parts: CustomParts = Object.fromEntries(
    Object.entries(replacements).map(([path, { part, settings = {} }]) => [path, { type: part.type, settings, family: part }])
  )
  const config = { ...internvl.config, customParts: { ...internvl.config.customParts, ...parts } }
  const module = modelFor(config)
  const isFresh = (path: string): boolean => Object.keys(parts).some((root) => isWithin(root, path))
  const fresh: tf.Tensor[] = []
  const params: InternVLParams = buildParams(module, (path, { init }) => {
    if (!isFresh(path)) return valueAt(internvl.params, path)
    const tensor = init(seed * 100_003 + fresh.length) as tf.Tensor
    fresh.push(tensor)
    return tensor
  })
  const loaded = {
    config,
    layout: 'hf' as const,
    module,
    params,
    model: bindModel(module, params, {}),
    dispose: () => tf.dispose(fresh)
  }
  const { dir, engine, processor, generation } = internvl
  return checkpointOf(loaded, { dir, engine, processor, generation }, {})
}
