// Exports of kernels.wasm. Addresses are byte offsets in TensorFlow.js's WebAssembly memory; sizes count float32 entries.
export { attention, attentionScratch } from './attention'
export { activation, affine, gated, layerNorm, residual, rmsNorm, rope } from './rowwise'
