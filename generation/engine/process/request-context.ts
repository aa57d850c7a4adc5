import { withoutUndefined } from '../../../lib/plain-object.js'
import { defaultMaxNewTokens } from '../../chat/chat.js'
import type { InternVLCheckpoint } from '../../checkpoint/load.js'
import type { GenerateOptions } from '../../decoding/generation-options.js'
import type { FeatureCache } from '../../feature-cache.js'
import type { EngineEvent, RequestOptions } from '../engine-types.js'
import type { PrepareJobs } from '../prepare/prepare-jobs.js'
import type { LogitsProcessorFactory } from './named-processors.js'
import type { PrefixCache } from './prefix-cache.js'
import type { Scheduler } from './scheduler.js'

/** The parts that all requests share. */
export interface RequestContext {
  readonly internvl: InternVLCheckpoint
  readonly prepare: PrepareJobs
  readonly scheduler: Scheduler
  readonly prefixes: PrefixCache
  readonly features: FeatureCache
  readonly processors: Readonly<Record<string, LogitsProcessorFactory>>
  readonly defaults: RequestOptions
  readonly prefillChunkSize: number
  /** Whether finished rows are put into the prefix cache. */
  readonly keepsPrefixes: boolean
}

/** Seconds of preparation, prefill and decoding. */
export interface PhaseSeconds {
  readonly prepare: number
  readonly prefill: number
  readonly decode: number
}

/** Events of a request as its process sends them; the engine adds the durations that it measures itself. */
export type ProcessEvent =
  | Exclude<EngineEvent, { readonly type: 'finished' }>
  | (Omit<Extract<EngineEvent, { readonly type: 'finished' }>, 'timings'> & { readonly seconds: PhaseSeconds })

/** Options of a request over the defaults of the engine and of the checkpoint. */
export const requestOptions = (
  { internvl: { generation }, defaults }: Pick<RequestContext, 'internvl' | 'defaults'>,
  options: RequestOptions = {}
): GenerateOptions & RequestOptions => {
  const given: GenerateOptions & RequestOptions = {
    ...generation,
    ...withoutUndefined(defaults ?? {}),
    ...withoutUndefined(options)
  }
  return given.maxLength === undefined ? { maxNewTokens: defaultMaxNewTokens, ...given } : given
}
