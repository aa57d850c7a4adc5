// What the module exports. Addresses are bytes of TensorFlow.js's own memory, sizes are counted in entries, all entries float32.
export { attention, attentionScratch } from './attention'
export { activation, affine, gated, layerNorm, residual, rmsNorm, rope } from './rows'
