import type { FloatDtype } from '../../../lib/dtype.js'
import type { TensorEntry } from '../../../lib/safetensors/read.js'
import type { Json } from '../../config/config-fields.js'

/** A stored tensor with its bytes. */
export interface StoredTensor extends Pick<TensorEntry, 'dtype' | 'shape'> {
  readonly bytes: Uint8Array
}

/** Tensors of one weight by the rest of their key, such as `qweight` and `scales`. */
export type Parts<T> = Readonly<Record<string, T>>

/** The weights `[out, in]` in rows `[from, to)`, in float32. */
export type Rows = (from: number, to: number) => Float32Array

/** A format in which other software stores the weight of a linear layer: several tensors instead of `weight`. */
export interface ForeignFormat {
  /** The part that every weight has, by the rest of its key. */
  readonly main: string
  /** Whether a part belongs to the weight, by the rest of its key. */
  readonly owns: (part: string) => boolean
  /** Shape and type of the weight; undefined for a tensor that is not in this format. */
  readonly describe: (
    parts: Parts<TensorEntry>,
    config: Json
  ) => { readonly shape: readonly [out: number, features: number]; readonly dtype: FloatDtype } | undefined
  readonly rows: (parts: Parts<StoredTensor>, config: Json, shape: readonly [out: number, features: number]) => Rows
}

/** The float type of a tensor, float32 for others. */
export const floatTypeOf = (entry: Pick<TensorEntry, 'dtype'> | undefined): FloatDtype =>
  entry && (entry.dtype === 'BF16' || entry.dtype === 'F16') ? entry.dtype : 'F32'

/** Bytes of int32 words as they are in memory. */
export const words = ({ bytes }: StoredTensor): Uint32Array => {
  const { buffer, byteOffset } = bytes.byteOffset % 4 ? bytes.slice() : bytes
  return new Uint32Array(buffer, byteOffset, bytes.byteLength / 4)
}
