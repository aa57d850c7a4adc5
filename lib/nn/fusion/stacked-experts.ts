import { isTapped } from '../../module.js'
import { runKernel } from '../../ops/kernel.js'
import { formatOf, type QuantizationFormat, type StoredWeight } from '../../quantization/formats.js'
import { tf } from '../../tf.js'
import { type Activation, gated } from '../activation.js'
import type { ChosenExperts } from '../experts.js'
import type { GatedLinearUnit } from '../gated-linear-unit.js'
import { isLora, type Linear } from '../linear.js'
import { fusible } from '../residual.js'

/** The stack of each first weight. A parameter tree has a tensor for each weight of a checkpoint, and no place for further ones. */
const stacks = new WeakMap<tf.Tensor, tf.Tensor>()

/**
 * Moves E weights of one format and shape into one tensor on the device, where kernels choose among them by ids that the host does not know. Returns
 * the weights, now views of that memory. Consumes the given ones. The stack lives as long as its first view.
 */
export const stackWeights = (weights: readonly StoredWeight[]): readonly StoredWeight[] => {
  const stored = weights.map(formatOf)
  const inputs = Object.fromEntries(stored.map(({ tensor }, e) => [e, tensor]))
  const [stack, ...views] = runKernel<tf.Tensor2D[]>('StackWeights', inputs, {})
  tf.dispose(stored.map(({ tensor }) => tensor))
  const [first] = views
  stacks.set(first!, stack!)
  const disposeView = first!.dispose.bind(first)
  first!.dispose = () => {
    stack!.dispose()
    disposeView()
  }
  return views.map((view, e) => {
    const { format } = stored[e]!
    return format === 'float32' ? view : ({ [format]: view } as unknown as StoredWeight)
  })
}

interface StackedWeight {
  readonly format: QuantizationFormat | 'float32'
  readonly stack: tf.Tensor
}

/** The stack of the weights of linear layers; undefined where there is none, and where a layer has a bias, a LoRA update or a tap. */
const stackOf = (layers: readonly Linear[]): StackedWeight | undefined => {
  if (layers.some((layer) => isTapped(layer) || layer.bias !== undefined || isLora(layer.weight))) return undefined
  const { format, tensor } = formatOf(layers[0]!.weight as StoredWeight)
  const stack = stacks.get(tensor)
  return stack && { format, stack }
}

const product = (x: tf.Tensor2D, ids: tf.Tensor2D, { format, stack }: StackedWeight): tf.Tensor2D =>
  runKernel('ExpertLinear', { x, ids, stack }, { format })

/** Gated MLPs whose weights are stacked; undefined where they are not. */
export const stackedGatedMlps = (experts: readonly GatedLinearUnit[]): ChosenExperts | undefined => {
  if (experts.some(isTapped)) return undefined
  const projections = experts.map((expert) => expert[fusible].projections)
  if (projections.some((layers) => !('gate_proj' in layers))) return undefined
  const stackNamed = (name: 'gate_proj' | 'up_proj' | 'down_proj') =>
    stackOf(projections.map((layers) => (layers as Readonly<Record<typeof name, Linear>>)[name]))
  const [gate, up, down] = [stackNamed('gate_proj'), stackNamed('up_proj'), stackNamed('down_proj')]
  if (!gate || !up || !down) return undefined
  const activation: Activation = experts[0]![fusible].activation
  return (x, ids) => product(gated(activation, product(x, ids, gate), product(x, ids, up)), ids, down)
}
