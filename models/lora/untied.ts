import { mapParams } from '../../lib/params.js'
import type { tf } from '../../lib/tf.js'
import type { OpenCheckpoint } from '../checkpoint/open-checkpoint.js'
import type { InternVLConfig } from '../config/model-config.js'
import { familyOf } from '../families.js'
import { splitFormat } from '../quantization/quantized-keys.js'

/** The node of a parameter tree at a path. */
const nodeAt = (params: unknown, path: string): unknown =>
  path.split('.').reduce((node, name) => (node as Readonly<Record<string, unknown>>)[name], params)

/**
 * A tied model as an untied one that computes the same: the head has a copy of the embeddings, which shares their memory. The caller
 * disposes the tensors of both trees. An untied model is returned unchanged.
 */
export const untied = <P>(config: InternVLConfig, params: P): { readonly config: InternVLConfig; readonly params: P } => {
  if (!config.tieWordEmbeddings) return { config, params }
  const { embeddings, head } = familyOf(config).parts
  const copy = mapParams((leaf: tf.Tensor) => leaf.clone())(nodeAt(params, embeddings))
  return { config: { ...config, tieWordEmbeddings: false }, params: { ...params, [head]: copy } }
}

/** A checkpoint of a tied model as one of an untied model, whose head is read from the embeddings. */
export const untiedCheckpoint = (checkpoint: OpenCheckpoint): OpenCheckpoint => {
  const { config, plan } = checkpoint
  if (!config.tieWordEmbeddings) return checkpoint
  const { embeddings, head } = familyOf(config).parts
  const rename = (key: string) => `${head}.weight${key.slice(`${embeddings}.weight`.length)}`
  const heads = plan.filter(({ key }) => splitFormat(key).path === `${embeddings}.weight`).map((tensor) => ({ ...tensor, key: rename(tensor.key) })) // biome-ignore format: one line
  const complete = [...plan, ...heads]
  return { ...checkpoint, config: { ...config, tieWordEmbeddings: false }, plan: complete, stored: complete }
}
