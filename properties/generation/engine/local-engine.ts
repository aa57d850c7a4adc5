import { demoModel, type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import type { EngineRequest, EngineResult } from '../../../generation/engine/engine-types.js'
import { prepareJobs } from '../../../generation/engine/prepare/prepare-jobs.js'
import { prefixCache } from '../../../generation/engine/process/prefix-cache.js'
import type { RequestContext } from '../../../generation/engine/process/request-context.js'
import { runRequest } from '../../../generation/engine/process/run-request.js'
import { createScheduler } from '../../../generation/engine/process/scheduler.js'
import { requestState } from '../../../generation/engine/request-handle.js'
import { featureCache } from '../../../generation/feature-cache.js'
import type { InternVL } from '../../../models/internvl/internvl.js'

export interface LocalOptions {
  readonly prefixCacheBytes?: number
  readonly prefillChunkSize?: number
  /** Called before each call of the vision encoder and of the decoder. */
  readonly onCall?: (name: 'imageFeatures' | 'decode', size: number) => void
}

/** The demo model, whose calls are reported. */
const reporting = (model: InternVL, onCall: LocalOptions['onCall'] = () => undefined): InternVL =>
  Object.assign((...a: Parameters<InternVL>) => model(...a), model, {
    imageFeatures: (...[tiles]: Parameters<InternVL['imageFeatures']>) => {
      onCall('imageFeatures', tiles.shape[0])
      return model.imageFeatures(tiles)
    },
    decode: (...[embeds, options]: Parameters<InternVL['decode']>) => {
      onCall('decode', embeds.shape[0] * embeds.shape[1])
      return model.decode(embeds, options)
    }
  }) as InternVL

/** The scheduler and caches of an engine, in this process. */
export const localEngine = (internvl: InternVLCheckpoint, options: LocalOptions = {}) => {
  const { prefixCacheBytes = 0, prefillChunkSize = 256, onCall } = options
  const model = reporting(internvl.model, onCall)
  const context: RequestContext = {
    internvl: { ...internvl, model },
    prepare: prepareJobs(internvl.processor, internvl.config.textConfig.vocabSize),
    scheduler: createScheduler(model),
    prefixes: prefixCache(prefixCacheBytes),
    features: featureCache(model),
    processors: {},
    defaults: {},
    prefillChunkSize,
    keepsPrefixes: prefixCacheBytes > 0
  }
  let requests = 0
  /** Runs a request to its end, which its signal may bring about. */
  const run = async ({ signal, ...request }: EngineRequest): Promise<EngineResult> => {
    const id = String(requests++)
    const controller = new AbortController()
    const state = requestState(id, request.options?.numReturnSequences ?? 1, () => controller.abort())
    signal?.addEventListener('abort', state.abort)
    if (signal?.aborted) state.abort()
    try {
      await runRequest(context, id, request, controller.signal, state.onEvent)
    } catch (error) {
      state.fail(error)
    }
    return state.handle.result()
  }
  return { run, context }
}

export const loadDemo = (): Promise<InternVLCheckpoint> => load(demoModel)
