import * as E from 'fp-ts/lib/Either.js'
import type { Issue, Issues } from '../../lib/error.js'
import { type InspectedModel, inspectModel } from '../../models/checkpoint/inspect-model.js'
import { isJson, type Json } from '../../models/config/config-fields.js'
import { readProcessorFiles } from '../../processors/config/processor-files.js'
import { loadProcessor } from '../../processors/processor.js'
import { readGenerationConfig } from '../decoding/generation-config.js'
import { type Oddity, odditiesOf } from './diagnostics.js'

/** All that can be said of a checkpoint folder without its weights. */
export interface Inspection {
  readonly dir: string
  /** Whether `load` would open it: there are no errors. */
  readonly loads: boolean
  /** Undefined when the folder cannot be opened at all. */
  readonly model: InspectedModel | undefined
  readonly oddities: readonly Oddity[]
  readonly issues: readonly Issue[]
}

const issuesOf = (result: E.Either<Issues, unknown>): readonly Issue[] => (E.isLeft(result) ? result.left : [])
const rightOf = <A>(result: E.Either<Issues, A>): A | undefined => (E.isRight(result) ? result.right : undefined)

const parsed = (bytes: string | Uint8Array | undefined): Json => {
  try {
    const json: unknown = JSON.parse(Buffer.from(bytes ?? '{}').toString('utf8'))
    return isJson(json) ? json : {}
  } catch {
    return {} // its reader tells
  }
}

/**
 * A checkpoint folder without its weights: the module tree, what is odd about its files and what the library does about it, and
 * all that keeps it from loading. It never throws for what is wrong with the folder.
 */
export const inspect = async (dir: string): Promise<Inspection> => {
  const [processor, generation] = [await loadProcessor(dir)(), await readGenerationConfig(dir)()]
  const [model, files] = [await inspectModel(dir)(), await readProcessorFiles(dir)()]
  const texts = rightOf(files) ?? new Map<string, Uint8Array>()
  const known = rightOf(model)
  const json = (name: string) => (name === 'config.json' ? (known?.json ?? {}) : parsed(texts.get(name)))
  const parts = {
    model: known,
    processor: rightOf(processor),
    generation: rightOf(generation) ?? {},
    json,
    has: (name: string) => texts.has(name)
  }
  const all = [...issuesOf(processor), ...issuesOf(generation), ...issuesOf(model), ...(known?.issues ?? [])]
  const issues = all.filter((f, i) => all.findIndex((g) => g.message === f.message) === i)
  return { dir, loads: issues.length === 0, model: known, oddities: odditiesOf(parts), issues }
}
