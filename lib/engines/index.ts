export { nativeBackend } from './native.js'
export { type Engine, type EngineName, type EngineOptions, engineNames, selectEngine } from './select.js'
