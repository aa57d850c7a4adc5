import { tfType } from '../../../../lib/engines/index.js'
import { tf } from '../../../../lib/tf.js'

/** One executed op of TensorFlow. */
export interface RecordedOp {
  readonly name: string
  /** Values of its type attributes; undefined for a list of types. */
  readonly types: Readonly<Record<string, string | undefined>>
  /** Shapes and types of its inputs. */
  readonly inputs: readonly string[]
  /** Number of elements of its largest int32 input. */
  readonly mostInt32: number
}

interface Backend {
  binding: {
    executeOp(
      name: string,
      attrs: readonly { name: string; type: number; value: unknown }[],
      inputs: readonly number[],
      n: number
    ): readonly Handle[]
    createTensor(shape: readonly number[], dtype: number, values: unknown): number
  }
}

interface Handle {
  readonly id: number
  readonly shape: readonly number[]
  readonly dtype: number
}

const typeNames = new Map<unknown, string>(Object.entries(tfType).map(([name, number]) => [number, name]))

/** `TF_ATTR_TYPE` of tensorflow/c/tf_attrtype.h */
const typeAttribute = 4

/**
 * Puts a recorder between TensorFlow.js and TensorFlow: `ops` are those executed since `clear`. Call it before kernels are registered, which hold the binding that
 * they find; `restore` removes it.
 */
export const recordOps = () => {
  const backend = tf.engine().findBackend('tensorflow') as unknown as Backend
  const original = backend.binding
  const ops: RecordedOp[] = []
  const handles = new Map<number, Handle>()
  const executeOp: Backend['binding']['executeOp'] = (name, attrs, inputs, n) => {
    const known = inputs.map((id) => handles.get(id))
    const sizes = known.map((t) => (t && t.dtype === tfType.int32 ? t.shape.reduce((a, b) => a * b, 1) : 0))
    const types = attrs
      .filter(({ type }) => type === typeAttribute)
      .map(({ name, value }) => [name, typeNames.get(value)] as const)
    ops.push({
      name,
      types: Object.fromEntries(types),
      inputs: known.map((t) => (t ? `${typeNames.get(t.dtype)} [${t.shape}]` : '?')),
      mostInt32: Math.max(0, ...sizes)
    })
    const outputs = original.executeOp(name, attrs, inputs, n)
    for (const output of outputs) handles.set(output.id, output)
    return outputs
  }
  const createTensor: Backend['binding']['createTensor'] = (shape, dtype, values) => {
    const id = original.createTensor(shape, dtype, values)
    handles.set(id, { id, shape, dtype })
    return id
  }
  backend.binding = Object.create(original, {
    executeOp: { value: executeOp },
    createTensor: { value: createTensor }
  }) as Backend['binding']
  return {
    ops,
    clear: () => void ops.splice(0),
    restore: () => {
      backend.binding = original
    }
  }
}
