/** A language model of the AI SDK without HTTP (`internvl-tfjs/ai-sdk`). */
export { createEngine } from '../engine/create-engine.js'
export { languageModel } from './language-model.js'
