import { valueText } from '../../lib/error.js'

/**
 * Indices of the layers that an option chooses: all for `true`, none for `false`, or the given ones, where -1 is the last. Throws a
 * `RangeError` that names the option for an index outside the model.
 */
export const chosenLayers = (
  option: string,
  chosen: boolean | number | readonly number[] | undefined,
  layers: number
): readonly number[] => {
  if (chosen === undefined || typeof chosen === 'boolean') return chosen ? Array.from({ length: layers }, (_, i) => i) : []
  return [chosen].flat().map((index) => {
    const i = index < 0 ? layers + index : index
    if (Number.isInteger(i) && i >= 0 && i < layers) return i
    throw new RangeError(`${option}: expected layers from ${-layers} to ${layers - 1}, got ${valueText(index)}`)
  })
}
