import * as E from 'fp-ts/lib/Either.js'
import { distinctIssues, type Issue, type Issues, whenValid } from '../../lib/error.js'
import { finishCommit } from '../../lib/safetensors/commit.js'
import { type InspectedModel, inspectModel } from '../../models/checkpoint/inspect-model.js'
import { isJson, type Json } from '../../models/config/config-fields.js'
import { readProcessorFiles } from '../../processors/config/processor-files.js'
import { loadProcessor } from '../../processors/processor.js'
import { readGenerationConfig } from '../decoding/generation-config.js'
import { type Diagnostic, diagnose } from './diagnostics.js'

/** Description of a checkpoint folder from its headers, without reading weights. */
export interface Inspection {
  readonly dir: string
  /** Whether `load` would succeed: there are no issues. */
  readonly loads: boolean
  /** Undefined if the folder cannot be opened at all. */
  readonly model: InspectedModel | undefined
  readonly diagnostics: readonly Diagnostic[]
  readonly issues: readonly Issue[]
  /** @deprecated The name of `diagnostics` before 0.2. */
  readonly oddities: readonly Diagnostic[]
}

const issuesOf = (result: E.Either<Issues, unknown>): readonly Issue[] => (E.isLeft(result) ? result.left : [])
const rightOf = <A>(result: E.Either<Issues, A>): A | undefined => (E.isRight(result) ? result.right : undefined)

const parsed = (bytes: string | Uint8Array | undefined): Json => {
  try {
    const json: unknown = JSON.parse(Buffer.from(bytes ?? '{}').toString('utf8'))
    return isJson(json) ? json : {}
  } catch {
    return {} // the reader of the file reports the error
  }
}

/**
 * Inspects a checkpoint folder without reading weights: the module tree, diagnostics of inconsistent files, and all issues that
 * prevent loading. Never throws for errors in the folder.
 */
export const inspect = async (dir: string): Promise<Inspection> => {
  const commit = await finishCommit(dir)()
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
  const all = [...issuesOf(commit), ...issuesOf(processor), ...issuesOf(generation), ...issuesOf(model), ...(known?.issues ?? [])]
  const issues = E.match(distinctIssues, () => [] as readonly Issue[])(whenValid(all, () => undefined))
  const diagnostics = diagnose(parts)
  return { dir, loads: issues.length === 0, model: known, diagnostics, oddities: diagnostics, issues }
}
