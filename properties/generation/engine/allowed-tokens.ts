import type { LogitsProcessorFactory } from '../../../generation/engine/process/named-processors.js'

/** Processors for the tests of `processorModules`: `only` allows the tokens of a text alone. */
export const logitsProcessors: Readonly<Record<string, LogitsProcessorFactory>> = {
  only: ({ processor }, data) => {
    const allowed = new Set(processor.tokenizer.encode(String(data), { addSpecialTokens: false }))
    return (_ids, logits) => logits.map((x, id) => (allowed.has(id) ? x : Number.NEGATIVE_INFINITY))
  }
}
