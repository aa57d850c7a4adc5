import { type Children, isTapped, type Module, module } from '../../module.js'
import type { tf } from '../../tf.js'
import { type AttentionContext, type AttentionOutput, attentionBlock, type SelfAttention } from '../attention/self-attention.js'
import { type GatedMlpParts, gatedMlpBlock } from '../gated-linear-unit.js'
import type { RmsNorm } from '../norm.js'
import { fusible } from '../residual.js'
import type { DecoderLayerParts } from './fused-decoder.js'
import { type CallNode, nodeOf, symbolicTrace, type TraceNode } from './symbolic-trace.js'

/** Output of a mixture of experts: states, and the router's score of every expert for every token, `[B·L, E]`. */
export interface MoeOutput {
  readonly hidden: tf.Tensor3D
  readonly routerLogits: tf.Tensor2D
}

/** A feed-forward of a decoder layer, `[B, L, D] → [B, L, D]`: a gated MLP or a mixture of experts. */
export interface FeedForward {
  (x: tf.Tensor3D): tf.Tensor3D | MoeOutput
  readonly [fusible]?: GatedMlpParts
}

/** Output of a decoder layer: that of its attention, states `[B, L, D]`, and the router logits of a mixture of experts. */
export interface DecoderLayerOutput extends AttentionOutput {
  readonly routerLogits?: tf.Tensor2D | undefined
}

/** The forward of a decoder layer. */
export interface DecoderLayer {
  (x: tf.Tensor3D, context: AttentionContext): DecoderLayerOutput
  readonly [fusible]?: DecoderLayerParts | undefined
}

/** A feed-forward's output as a record; `routerLogits` is there for a mixture of experts only. */
export const feedForwardOutput = (
  out: tf.Tensor3D | MoeOutput
): { readonly hidden: tf.Tensor3D; readonly routerLogits?: tf.Tensor2D } => ('hidden' in out ? out : { hidden: out })

/** The names of the sub-modules in a traced `x + branch(norm(x), …)`. */
interface ResidualNode {
  readonly x: TraceNode
  readonly norm: string
  readonly branch: CallNode
}

/** Recognises `x + branch(norm(x), …args)` with the given further arguments. */
const residualNode = (sum: TraceNode | undefined, args: readonly TraceNode[]): ResidualNode | undefined => {
  if (sum?.op !== 'add') return undefined
  const { left: x, right } = sum
  const branch = right?.op === 'get' && right.key === 'hidden' ? right.of : right
  if (branch?.op !== 'call') return undefined
  const [norm, ...rest] = branch.args
  const isNormOfX = norm?.op === 'call' && norm.args.length === 1 && norm.args[0] === x
  return isNormOfX && rest.length === args.length && rest.every((arg, i) => arg === args[i])
    ? { x, norm: norm.target, branch }
    : undefined
}

const isGet = (node: TraceNode | undefined, key: string, of: TraceNode): boolean =>
  node?.op === 'get' && node.key === key && node.of === of

/** The sub-modules of a pre-norm layer, found in a symbolic trace of its forward; `undefined` for any other layer. */
const preNormLayer = <P>(layer: Module<P, DecoderLayer>) =>
  symbolicTrace(layer, ['x', 'context'], (out, [x, context]) => {
    const { hidden, cache, routerLogits, attentions, ...others } = out as Readonly<Record<string, unknown>>
    const mlp = residualNode(nodeOf(hidden), [])
    const attention = residualNode(mlp?.x, [context!])
    if (!mlp || !attention || attention.x !== x || Object.keys(others).length > 0) return undefined
    if (!isGet(nodeOf(cache), 'cache', attention.branch)) return undefined
    if (attentions !== undefined && !isGet(nodeOf(attentions), 'attentions', attention.branch)) return undefined
    if (routerLogits !== undefined && !isGet(nodeOf(routerLogits), 'routerLogits', mlp.branch)) return undefined
    return { attentionNorm: attention.norm, attention: attention.branch.target, mlpNorm: mlp.norm, mlp: mlp.branch.target }
  })

const isRmsNorm = (norm: object): norm is RmsNorm => 'weight' in norm && 'eps' in norm && !isTapped(norm)

/**
 * The same layer with fused kernels for inference, as `torch.compile` for one pattern. The layer's forward is traced symbolically once.
 * If the forward is a pre-norm block, `h = x + attention(norm(x))` then `h + mlp(norm(h))`, its residual blocks run as
 * single kernels where norm and branch are fusible; parts that need a gradient run one by one. Every other layer runs as
 * written.
 */
export const fuseLayer = <P>(layer: Module<P, DecoderLayer>): Module<P, DecoderLayer> => {
  const names = preNormLayer(layer)
  if (!names) return layer
  const fuse = (self: Readonly<Record<string, unknown>>): DecoderLayer => {
    const unfused = layer.forward(self as never)
    const [attentionNorm, mlpNorm] = [self[names.attentionNorm] as RmsNorm, self[names.mlpNorm] as RmsNorm]
    const [attention, mlp] = [self[names.attention] as SelfAttention, self[names.mlp] as FeedForward]
    const [attentionParts, mlpParts] = [
      isRmsNorm(attentionNorm) ? attention[fusible] : undefined,
      isRmsNorm(mlpNorm) ? mlp[fusible] : undefined
    ]
    if (!attentionParts && !mlpParts) return unfused
    const attend = (x: tf.Tensor3D, context: AttentionContext): AttentionOutput => {
      if (attentionParts && !context.outputAttentions) return attentionBlock(x, attentionNorm, attentionParts, context)
      const { hidden, ...rest } = attention(attentionNorm(x), context)
      return { hidden: x.add(hidden), ...rest }
    }
    const feedForward = (h: tf.Tensor3D) => {
      if (mlpParts) return { hidden: gatedMlpBlock(mlpParts, h, mlpNorm) }
      const out = feedForwardOutput(mlp(mlpNorm(h)))
      return { ...out, hidden: h.add<tf.Tensor3D>(out.hidden) }
    }
    const forward: DecoderLayer = (x, context) => {
      const { hidden, ...rest } = attend(x, context)
      return { ...feedForward(hidden), ...rest }
    }
    const parts = attentionParts && mlpParts && { attentionNorm, attention: attentionParts, mlpNorm, mlp: mlpParts }
    return Object.assign(forward, unfused, parts && { [fusible]: parts })
  }
  // the children's types are erased: inferring them again from `Children` does not end
  const build = module as unknown as (children: Children, forward: typeof fuse) => Module<P, DecoderLayer>
  return build(layer.children, fuse)
}
