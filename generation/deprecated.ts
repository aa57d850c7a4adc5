/** Names of this package's exports before version 0.2. */
export {
  /** @deprecated Use `Embeddings`. */
  type Embeddings as Embedded,
  /** @deprecated Use `loadVisionEncoder`. */
  loadVisionEncoder as loadEyes
} from './embed.js'
export {
  /** @deprecated Use the `features` of a loaded checkpoint, which its sessions share, or `featureCache` for a new cache. */
  featureCache as featuresOf
} from './feature-cache.js'
