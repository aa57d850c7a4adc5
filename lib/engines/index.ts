export type { Device } from './device.js'
export { type Engine, type EngineName, engineNames, type Loaders } from './engine.js'
export { attr, type NativeBackend, nativeBackend, type OpAttr, type TensorHandle, tfType } from './native.js'
export { chooseEngine, type EngineOptions, selectEngine } from './select.js'
