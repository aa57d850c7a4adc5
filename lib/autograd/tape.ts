import { tf } from '../tf.js'

type TapeNode = ReturnType<typeof tf.engine>['state']['activeTape'][number]

/** Ids of the tensors that depend on what is being differentiated; none known while TensorFlow.js itself records (`tf.grad`). */
let reached: ReadonlySet<number> | undefined

/** Whether operations are being recorded, to be differentiated. */
export const isRecording = (): boolean => {
  const { gradientDepth, kernelDepth } = tf.engine().state
  return gradientDepth > 0 && kernelDepth === 0
}

/** Whether a tensor depends on what is being differentiated. */
export const isTraced = (x: tf.Tensor): boolean => isRecording() && (reached?.has(x.id) ?? true)

/** Frees what nothing will ask for again, but a way back might: long before the `tf.tidy` around it does, as after each layer of many. */
export const spent = (x: tf.Tensor): void => {
  if (!isTraced(x)) x.dispose()
}

const disposeSaved = (nodes: readonly TapeNode[]): void => {
  for (const { saved } of nodes) tf.dispose(saved)
}

/**
 * Runs `f` and keeps the operations that depend on `xs`. What does not (a frozen vision tower) leaves nothing on the tape, so
 * it costs no more memory than without gradients.
 */
const record = <A>(f: () => A, xs: readonly tf.Tensor[]) => {
  const { state } = tf.engine()
  const { activeTape, gradientDepth, kernelDepth } = state
  const before = reached
  const own = new Set(xs.map(({ id }) => id))
  const nodes: TapeNode[] = []
  const push = (node: TapeNode): number => {
    // a kernel may be given `undefined` for an input that it does without
    if (!Object.values(node.inputs).some((x: tf.Tensor | undefined) => x && own.has(x.id))) {
      disposeSaved([node])
      return nodes.length
    }
    for (const { id } of node.outputs) own.add(id)
    return nodes.push(node)
  }
  try {
    state.activeTape = Object.assign([] as TapeNode[], { push })
    state.gradientDepth = 1
    state.kernelDepth = 0
    reached = own
    return { value: f(), nodes, own }
  } catch (error) {
    disposeSaved(nodes)
    throw error
  } finally {
    Object.assign(state, { activeTape, gradientDepth, kernelDepth })
    reached = before
  }
}

/** Gradients of a node's inputs that depend on what is differentiated, by the inputs' ids; each a tensor of its own. */
const slopesOf = (node: TapeNode, dys: ReadonlyArray<tf.Tensor | undefined>, own: ReadonlySet<number>) => {
  if (!node.gradient) throw new RangeError(`gradient: ${node.kernelName} has none`)
  const slopes = node.gradient(dys.map((dy) => dy ?? null) as tf.Tensor[])
  const taken = new Set<unknown>(dys)
  return Object.entries(node.inputs).flatMap(([name, { id }]) => {
    if (!own.has(id)) return []
    const dx = slopes[name]!()
    const fresh = taken.has(dx) ? dx.clone() : dx
    taken.add(dx)
    return [{ id, dx: fresh }]
  })
}

/** Walks the tape back, freeing each gradient and what was saved as soon as it has been used. */
const walkBack = (
  nodes: readonly TapeNode[],
  own: ReadonlySet<number>,
  seeds: Map<number, tf.Tensor>,
  kept: ReadonlySet<number>
) => {
  for (const node of [...nodes].reverse()) {
    const dys = node.outputs.map(({ id }) => seeds.get(id))
    if (dys.some((dy) => dy !== undefined))
      for (const { id, dx } of tf.tidy(
        () => slopesOf(node, dys, own) as unknown as tf.TensorContainerArray
      ) as unknown as ReturnType<typeof slopesOf>) {
        const old = seeds.get(id)
        seeds.set(id, old ? old.add(dx) : dx)
        if (old) tf.dispose([old, dx])
      }
    for (const { id } of node.outputs)
      if (!kept.has(id)) {
        seeds.get(id)?.dispose()
        seeds.delete(id)
      }
    disposeSaved([node])
  }
}

/**
 * The values of `f` and, pulled back through it, `dys` (one for each value, `undefined` for none): `Σ dyᵢ · ∂yᵢ/∂x` for every x,
 * `undefined` where x reaches none of them. Inside another gradient the result is a constant.
 */
export const pullback = (
  f: () => readonly tf.Tensor[],
  xs: readonly tf.Tensor[],
  dysOf: (ys: readonly tf.Tensor[]) => ReadonlyArray<tf.Tensor | undefined>
): { readonly values: readonly tf.Tensor[]; readonly grads: ReadonlyArray<tf.Tensor | undefined> } => {
  const result = tf.tidy(() => {
    const { value: values, nodes, own } = record(() => tf.tidy(() => f() as tf.Tensor[]), xs)
    const seeds = new Map<number, tf.Tensor>()
    try {
      for (const [i, dy] of dysOf(values).entries()) {
        const { id } = values[i]!
        if (dy) seeds.set(id, seeds.get(id)?.add(dy) ?? dy.clone())
      }
      walkBack(nodes, own, seeds, new Set(xs.map(({ id }) => id)))
    } finally {
      disposeSaved(nodes)
    }
    return { values, grads: xs.map(({ id }) => seeds.get(id)) } as unknown as tf.TensorContainerObject
  })
  return result as unknown as ReturnType<typeof pullback>
}

/** Keeps tensors for the way back. */
type Save = (tensors: readonly tf.Tensor[]) => void

/** An operation of one's own, recorded as one: forward's results, and a gradient for each input by name, computed when asked for. */
interface Operation<A> {
  readonly inputs: Readonly<Record<string, tf.Tensor>>
  readonly forward: (save: Save) => A
  readonly backward: (dys: readonly tf.Tensor[], saved: readonly tf.Tensor[]) => Readonly<Record<string, () => tf.Tensor>>
}

/** `tf.customGrad` with inputs by name, of which those that need no gradient cost none. Source: TensorFlow.js' `Engine`, which has it as a private method. */
export const operation = <A extends tf.Tensor | readonly tf.Tensor[]>({ inputs, forward, backward }: Operation<A>): A => {
  const engine = tf.engine() as unknown as {
    readonly runKernelFunc: (op: {
      readonly inputs: Operation<A>['inputs']
      readonly forwardFunc: (backend: unknown, save: Save) => A
      readonly backwardsFunc: (
        dy: tf.Tensor | readonly tf.Tensor[],
        saved: readonly tf.Tensor[]
      ) => ReturnType<Operation<A>['backward']>
    }) => A
  }
  return engine.runKernelFunc({
    inputs,
    forwardFunc: (_, save) => forward(save),
    backwardsFunc: (dy, saved) => backward(dy instanceof tf.Tensor ? [dy] : dy, saved)
  })
}
