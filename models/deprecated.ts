/** Names of this package's exports before version 0.2. */
export {
  /** @deprecated Use `linearLayers`. */
  linearLayers as linearModules,
  /** @deprecated Use `loraLeaves`. */
  loraLeaves as loraParts,
  /** @deprecated Use `mergeLoraInPlace`. */
  mergeLoraInPlace as absorbLora,
  /** @deprecated Use `shapesWithoutLora`. */
  shapesWithoutLora as plainShapes
} from './lora/lora.js'
