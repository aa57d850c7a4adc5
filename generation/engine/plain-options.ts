import type { PrepareOptions } from '../../processors/processor.js'
import type { GenerateOptions } from '../decoding/generation-options.js'
import type { ResponseOptions } from '../structured/response-format.js'

/** Options that hold functions or tensors, objects of this process, or state that the engine keeps itself. */
type LocalGenerateOption =
  | 'decode'
  | 'logitsProcessors'
  | 'stoppingConditions'
  | 'signal'
  | 'assistantModel'
  | 'tokenHealing'
  | 'tokenizer'
  | 'cache'
  | 'returnCache'
  | 'outputAttentions'
  | 'outputHiddenStates'
  | 'pause'
  | 'prefillChunkSize'
  | 'imageTokenId'
  | 'maxPositionEmbeddings'

/** Options of preparation and generation that can be sent to another process: all that are plain data. */
export type RequestOptions = Omit<PrepareOptions, 'retouch' | 'paddingSide' | 'lookup'> &
  Omit<GenerateOptions, LocalGenerateOption> &
  ResponseOptions & {
    /** Whether special tokens are left out of the text of answers; true by default. End tokens always are. */
    readonly skipSpecialTokens?: boolean | undefined
  }
