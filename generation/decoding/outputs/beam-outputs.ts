import type { ForwardResult } from '../batch-cache.js'
import type { BeamSearchState } from '../beam.js'
import type { GenerationResult, PreparedGeneration } from '../prepare-generation.js'
import { innerOutputCollector, returnsInnerOutputs } from './inner-outputs.js'

/** Unprocessed and processed logits `[V]` of one beam, where the options ask for them. */
export interface BeamLogits {
  readonly logits?: Float32Array
  readonly scores?: Float32Array
}

/** Collects the outputs of each step of a beam search. Beams are counted over all prompts: `numBeams` for each. */
export interface BeamOutputs {
  /** Takes over the inner outputs of a forward of the beams of the unfinished searches. */
  readonly takeForward: (output: ForwardResult, unfinished: readonly BeamSearchState[]) => void
  /** The logits of one beam before its next token. */
  readonly takeLogits: (search: BeamSearchState, beam: number, logits: BeamLogits) => void
  /** The outputs of the chosen sequences, whose tokens extend the beams `beamIndices`. The caller owns the tensors. */
  readonly result: (beamIndices: readonly (readonly number[])[]) => Partial<GenerationResult>
  readonly dispose: () => void
}

/** A collector of the outputs that the options ask for. */
export const beamOutputs = ({ options: o, prompts }: PreparedGeneration): BeamOutputs => {
  const n = o.numBeams ?? 1
  const inner = innerOutputCollector(o)
  const byStep: BeamLogits[][] = []
  const rowsOf = (unfinished: readonly BeamSearchState[], width: number): readonly number[] =>
    Array.from({ length: prompts.length * n }, (_, row) => {
      const s = unfinished.findIndex(({ source }) => source === Math.floor(row / n))
      return s < 0 ? -1 : s * width + (width === 1 ? 0 : row % n)
    })
  return {
    takeForward: (output, unfinished) => inner.take(output, rowsOf(unfinished, output.batch.padding.length / unfinished.length)),
    takeLogits: ({ source, beams, promptLength }, beam, logits) => {
      const step = beams[beam]!.ids.length - promptLength
      byStep[step] ??= []
      byStep[step][source * n + beam] = logits
    },
    result: (beamIndices) => {
      const alongBeams = (name: keyof BeamLogits) =>
        beamIndices.map((row) => row.map((beam, step) => byStep[step]![beam]![name]!))
      return {
        ...(o.outputLogits ? { stepLogits: alongBeams('logits') } : {}),
        ...(o.outputScores ? { stepScores: alongBeams('scores') } : {}),
        ...(o.outputLogits || o.outputScores || returnsInnerOutputs(o) ? { beamIndices } : {}),
        ...inner.result()
      }
    },
    dispose: inner.dispose
  }
}
