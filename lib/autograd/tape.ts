import { hasKernel, runKernel } from '../ops/kernel.js'
import { tf } from '../tf.js'

type TapeNode = ReturnType<typeof tf.engine>['state']['activeTape'][number]

/**
 * Ids of the tensors that depend on the differentiated tensors; `undefined` while TensorFlow.js itself records (`tf.grad`). Module-level
 * as TensorFlow.js' own tape is (`tf.engine().state`): `record` sets the value for the time of one synchronous call and restores it.
 */
let tracedIds: ReadonlySet<number> | undefined

/** Whether operations are recorded on a tape. */
export const isRecording = (): boolean => {
  const { gradientDepth, kernelDepth } = tf.engine().state
  return gradientDepth > 0 && kernelDepth === 0
}

/** Whether operations are recorded and a tensor depends on the differentiated tensors. */
export const isTraced = (x: tf.Tensor): boolean => isRecording() && (tracedIds?.has(x.id) ?? true)

/** Runs `f` without recording: its result is a constant for a surrounding gradient. Source: JAX's `jax.lax.stop_gradient`. */
export const withoutGradient = <A>(f: () => A): A => {
  const { state } = tf.engine()
  const { gradientDepth } = state
  state.gradientDepth = 0
  try {
    return f()
  } finally {
    state.gradientDepth = gradientDepth
  }
}

/** Disposes `x` now, before the surrounding `tf.tidy` ends, unless a recorded gradient still needs `x`. */
export const disposeUnlessTraced = (x: tf.Tensor): void => {
  if (!isTraced(x)) x.dispose()
}

const disposeSaved = (nodes: readonly TapeNode[]): void => {
  for (const { saved } of nodes) for (const x of saved ?? []) x.dispose()
}

/** A tensor on the same memory, as `x.clone()` is one, but no operation on the tape: a training step saves some 300. */
const alias = (x: tf.Tensor): tf.Tensor => {
  const engine = tf.engine() as unknown as { readonly makeTensorFromTensorInfo: (info: tf.TensorInfo) => tf.Tensor }
  tf.backend().incRef(x.dataId)
  return engine.makeTensorFromTensorInfo(x)
}

/**
 * Runs `f` and records the operations that depend on `xs`. Operations that do not depend on `xs` (a frozen vision tower) are not
 * recorded, and take no more memory than without gradients.
 */
const record = <A>(f: () => A, xs: readonly tf.Tensor[]) => {
  const { state } = tf.engine()
  const { activeTape, gradientDepth, kernelDepth } = state
  const before = tracedIds
  const traced = new Set(xs.map(({ id }) => id))
  const nodes: TapeNode[] = []
  const push = (node: TapeNode): number => {
    // optional inputs of a kernel may be `undefined`
    if (!Object.values(node.inputs).some((x: tf.Tensor | undefined) => x && traced.has(x.id))) {
      disposeSaved([node])
      return nodes.length
    }
    for (const { id } of node.outputs) traced.add(id)
    return nodes.push(node)
  }
  try {
    state.activeTape = Object.assign([] as TapeNode[], { push })
    state.gradientDepth = 1
    state.kernelDepth = 0
    tracedIds = traced
    return { value: f(), nodes, traced }
  } catch (error) {
    disposeSaved(nodes)
    throw error
  } finally {
    Object.assign(state, { activeTape, gradientDepth, kernelDepth })
    tracedIds = before
  }
}

/** The node whose gradients are computed, the gradients known so far, and the inputs whose new gradients contain those. */
interface BackwardCall {
  readonly node: TapeNode
  readonly known: ReadonlyMap<number, tf.Tensor>
  readonly totals: Set<number>
}

/** Module-level as `tracedIds` is: set for the time of one synchronous call. */
let backwardCall: BackwardCall | undefined

/**
 * The gradient that an input of the present node has from later operations; `undefined` if there is none. The caller must add this gradient
 * to its own: the result is taken as the sum. A backward kernel with the addition costs less than a second operation for it.
 */
export const gradientSoFar = (x: tf.Tensor): tf.Tensor | undefined => {
  if (!backwardCall) return undefined
  const { node, known, totals } = backwardCall
  const uses = Object.values(node.inputs).filter((input: tf.Tensor | undefined) => input?.id === x.id)
  const sum = uses.length === 1 ? known.get(x.id) : undefined
  if (sum) totals.add(x.id)
  return sum
}

/** Gradients of the traced inputs of a node, by the inputs' ids; no two share a tensor. A total contains the gradient known so far. */
const inputGradients = (
  node: TapeNode,
  dys: ReadonlyArray<tf.Tensor | undefined>,
  traced: ReadonlySet<number>,
  known: ReadonlyMap<number, tf.Tensor>
) => {
  if (!node.gradient) throw new RangeError(`gradient: ${node.kernelName} has none`)
  const [outer, totals] = [backwardCall, new Set<number>()]
  backwardCall = { node, known, totals }
  try {
    return computedGradients(node, dys, traced, totals)
  } finally {
    backwardCall = outer
  }
}

/** The gradients of `inputGradients`, where `totals` is complete after the node's backward pass. */
const computedGradients = (
  node: TapeNode,
  dys: ReadonlyArray<tf.Tensor | undefined>,
  traced: ReadonlySet<number>,
  totals: ReadonlySet<number>
) => {
  // of a copy: TensorFlow.js' own gradient casts, which copies all entries
  const gradients =
    node.kernelName === 'Identity' ? { x: () => dys[0]! } : node.gradient!(dys.map((dy) => dy ?? null) as tf.Tensor[])
  const used = new Set<unknown>(dys)
  return Object.entries(node.inputs).flatMap(([name, { id }]) => {
    if (!traced.has(id)) return []
    const dx = gradients[name]!()
    const fresh = used.has(dx) ? dx.clone() : dx
    used.add(dx)
    return [{ id, dx: fresh, isTotal: totals.has(id) }]
  })
}

/** The ids among `xs` whose gradient is complete after the backward pass of each node: those that no earlier node has as an input. */
const completedBy = (nodes: readonly TapeNode[], xs: ReadonlySet<number>): ReadonlyMap<TapeNode, readonly number[]> => {
  const [completed, visited] = [new Map<TapeNode, number[]>(), new Set<number>()]
  for (const node of nodes)
    for (const x of Object.values(node.inputs) as (tf.Tensor | undefined)[])
      if (x && xs.has(x.id) && !visited.has(x.id)) {
        visited.add(x.id)
        completed.set(node, [...(completed.get(node) ?? []), x.id])
      }
  return completed
}

/** The sum of two gradients of a tensor. The compiled kernel costs half as much as TensorFlow's op on the states of a small model. */
const added = (a: tf.Tensor, b: tf.Tensor): tf.Tensor =>
  hasKernel('AddPairs') && a.size > 0 ? runKernel<readonly tf.Tensor[]>('AddPairs', { a, b }, {})[0]! : a.add(b)

/**
 * Walks the tape backward. Gradients and saved tensors are disposed as soon as they have been used. `onComplete` receives the ids of `keepIds`
 * whose gradients no further node changes.
 */
const backpropagate = (
  nodes: readonly TapeNode[],
  traced: ReadonlySet<number>,
  seeds: Map<number, tf.Tensor>,
  keepIds: ReadonlySet<number>,
  onComplete?: (id: number) => void
) => {
  const completed = onComplete && completedBy(nodes, keepIds)
  for (const node of [...nodes].reverse()) {
    const dys = node.outputs.map(({ id }) => seeds.get(id))
    if (dys.some((dy) => dy !== undefined))
      for (const { id, dx, isTotal } of tf.tidy(
        () => inputGradients(node, dys, traced, seeds) as unknown as tf.TensorContainerArray
      ) as unknown as ReturnType<typeof inputGradients>) {
        const old = seeds.get(id)
        seeds.set(id, old && !isTotal ? added(old, dx) : dx)
        old?.dispose()
        if (old && !isTotal) dx.dispose()
      }
    for (const { id } of node.outputs)
      if (!keepIds.has(id)) {
        seeds.get(id)?.dispose()
        seeds.delete(id)
      }
    disposeSaved([node])
    for (const id of completed?.get(node) ?? []) onComplete?.(id)
  }
}

/**
 * The values of `f` and the vector-Jacobian products `Σ dyᵢ · ∂yᵢ/∂x` for every x, with one `dy` for each value (`undefined` for zero).
 * A gradient is `undefined` where no value depends on x. Inside another gradient the result is a constant. Source: JAX's `jax.vjp`.
 *
 * `onGradient` takes the gradient of each x that has one as soon as it is complete, while the backward pass goes on; the result has then none.
 */
export const vjp = (
  f: () => readonly tf.Tensor[],
  xs: readonly tf.Tensor[],
  dysOf: (ys: readonly tf.Tensor[]) => ReadonlyArray<tf.Tensor | undefined>,
  onGradient?: (index: number, gradient: tf.Tensor) => void
): { readonly values: readonly tf.Tensor[]; readonly grads: ReadonlyArray<tf.Tensor | undefined> } => {
  const result = tf.tidy(() => {
    const { value: values, nodes, traced } = record(() => tf.tidy(() => f() as tf.Tensor[]), xs)
    const seeds = new Map<number, tf.Tensor>()
    try {
      for (const [i, dy] of dysOf(values).entries()) {
        const { id } = values[i]!
        if (dy) seeds.set(id, seeds.get(id)?.add(dy) ?? dy.clone())
      }
      const take = (id: number): void => {
        const gradient = seeds.get(id)
        seeds.delete(id)
        const indices = xs.flatMap((x, i) => (x.id === id ? [i] : []))
        if (gradient) for (const [n, i] of indices.entries()) onGradient!(i, n === 0 ? gradient : gradient.clone())
      }
      backpropagate(nodes, traced, seeds, new Set(xs.map(({ id }) => id)), onGradient && take)
    } finally {
      disposeSaved(nodes)
    }
    return { values, grads: xs.map(({ id }) => seeds.get(id)) } as unknown as tf.TensorContainerObject
  })
  return result as unknown as ReturnType<typeof vjp>
}

/** Saves tensors for the backward pass. */
type Save = (tensors: readonly tf.Tensor[]) => void

/** An operation with a custom gradient: the forward's results, and a lazily computed gradient for each input by name. */
interface CustomGradient<A> {
  readonly name: string
  readonly inputs: Readonly<Record<string, tf.Tensor>>
  readonly forward: (save: Save) => A
  readonly backward: (dys: readonly tf.Tensor[], saved: readonly tf.Tensor[]) => Readonly<Record<string, () => tf.Tensor>>
}

/**
 * Runs `forward` as one operation of the tape, as `tf.customGrad` does, but with named inputs: gradients of inputs that need none are not
 * computed. Outputs without a gradient have zeros. A forward of several operations needs a `tf.tidy` of its own.
 */
export const customGradient = <A extends tf.Tensor | readonly tf.Tensor[]>({
  name,
  inputs,
  forward,
  backward
}: CustomGradient<A>): A => {
  if (!isRecording()) return forward(() => undefined)
  const { state } = tf.engine()
  let saved: readonly tf.Tensor[] = []
  const save: Save = (tensors) => {
    saved = tensors.map((x) => tf.keep(alias(x)))
  }
  state.kernelDepth++ // the operations of `forward` are not recorded
  try {
    const results = forward(save)
    const outputs: readonly tf.Tensor[] = results instanceof tf.Tensor ? [results] : results
    const gradient = (dys: readonly (tf.Tensor | null)[]) =>
      backward(
        dys.map((dy, i) => dy ?? tf.zeros(outputs[i]!.shape, outputs[i]!.dtype)),
        saved
      )
    const node = { id: state.nextTapeNodeId++, kernelName: name, inputs, outputs, saved, gradient }
    state.activeTape.push(node as unknown as TapeNode)
    return results
  } catch (error) {
    tf.dispose([...saved])
    throw error
  } finally {
    state.kernelDepth--
  }
}
