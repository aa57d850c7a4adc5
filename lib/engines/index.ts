export { attr, type Handle, type NativeBackend, nativeBackend, type OpAttr, tfType } from './native.js'
export {
  chooseEngine,
  type Engine,
  type EngineName,
  type EngineOptions,
  engineNames,
  type Loaders,
  selectEngine
} from './select.js'
