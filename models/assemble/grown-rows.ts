import { type FloatDtype, toFloat32 } from '../../lib/dtype.js'
import type { TensorFiles } from '../../lib/safetensors/read.js'
import { type Planned, renamed } from '../checkpoint/fuse.js'
import { composePlans } from '../checkpoint/layout.js'
import { rangesOf } from '../checkpoint/open-checkpoint.js'
import { pieceReader, plannedBytes } from '../checkpoint/read-planned.js'
import type { ComputedTensor } from './joined-files.js'

/** The token table of a decoder after tokens were added to its tokenizer. */
export interface GrownVocabulary {
  /** Ids of the added tokens, one after another. */
  readonly newIds: readonly number[]
  /** Largest id of the tokenizer plus one. */
  readonly size: number
}

/** Rows of the embeddings: those of the file, which may have more than the tokenizer has ids, and enough for the added tokens. */
export const rowsFor = (stored: number, { size }: GrownVocabulary): number => Math.max(stored, size)

/** Mean of the first `count` rows of a planned matrix `[V, D]`, in float32: `[D]`. Rows are read piece by piece. */
const meanRow = async (files: TensorFiles, planned: Planned, count: number): Promise<Float32Array> => {
  const D = planned.shape[1]!
  const sum = new Float64Array(D)
  let left = count * D
  for await (const piece of pieceReader(rangesOf(files))(planned)) {
    const values = toFloat32(piece, planned.dtype).subarray(0, left)
    for (let i = 0; i < values.length; i++) sum[i % D]! += values[i]!
    left -= values.length
    if (left === 0) break
  }
  return Float32Array.from(sum, (total) => total / count)
}

/** A computed tensor and the matrix that has its rows. */
export interface GrownMatrix {
  readonly planned: Planned
  readonly computed: readonly [key: string, tensor: ComputedTensor]
}

/**
 * An embedding or head matrix `[V, D]` with rows for the added tokens, each the mean of the rows of the tokens before them, as InternVL's
 * training initializes them. Ids below V take the place of rows that no token had. Source: `internvl_chat_finetune.py` (OpenGVLab/InternVL).
 */
export const growRows = async (
  files: TensorFiles,
  planned: Planned,
  vocabulary: GrownVocabulary,
  computedKey: (key: string) => string
): Promise<GrownMatrix> => {
  const [V, D] = planned.shape as readonly [number, number]
  const known = Math.min(V, vocabulary.newIds[0] ?? vocabulary.size)
  const [end, total] = [Math.min(V, vocabulary.size), rowsFor(V, vocabulary)]
  const added = Math.max(vocabulary.size, known) - known
  const mean = await meanRow(files, planned, known)
  const values = new Float32Array(added * D)
  for (let row = 0; row < added; row++) values.set(mean, row * D)
  const computed: ComputedTensor = { shape: [added, D], values, dtype: planned.dtype as FloatDtype }
  const source = renamed({ key: computedKey(planned.key), dtype: planned.dtype, shape: [added, D] }, computedKey(planned.key))
  const rowBytes = plannedBytes(planned) / V
  const range = (key: string, from: number, to: number) => ({ source: key, begin: from * rowBytes, end: to * rowBytes })
  const grown: Planned = {
    ...{ key: planned.key, dtype: planned.dtype, shape: [total, D] },
    parts: [range(planned.key, 0, known), range(source.key, 0, added), range(planned.key, end, V)].filter(
      ({ begin, end: last }) => begin < last
    )
  }
  return { planned: composePlans([planned, source], [grown])[0]!, computed: [source.key, computed] }
}
