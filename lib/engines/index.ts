export { type Engine, type EngineName, engineNames, type Loaders } from './engine.js'
export { attr, type Handle, type NativeBackend, nativeBackend, type OpAttr, tfType } from './native.js'
export { chooseEngine, type EngineOptions, selectEngine } from './select.js'
