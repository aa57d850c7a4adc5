/** Options that layers read in a training forward only. */
export interface TrainingOptions {
  /** The dropout masks depend on the seed alone. */
  readonly seed: number
  /** Dropout rate of the vision layers' outputs (`hidden_dropout_prob`). */
  readonly dropout?: number
  /** Stochastic depth: the rate of dropped residual branches in the last vision layer; 0 in the first layer, linear in between. */
  readonly dropPath?: number
  /** Gradient checkpointing: save the inputs of each layer only, and compute the layer again in the backward pass. */
  readonly checkpointing?: boolean
}

/** State of the current forward: its options, and the number of dropout masks sampled so far. */
interface TrainingState {
  readonly options: TrainingOptions
  masks: number
}

/**
 * Module-level so that layers need no extra argument, as PyTorch's `torch.is_grad_enabled`. Only `withState` sets the value, for the time
 * of one synchronous call, and restores the value before.
 */
let current: TrainingState | undefined

const withState = <A>(state: TrainingState | undefined, f: () => A): A => {
  const before = current
  current = state
  try {
    return f()
  } finally {
    current = before
  }
}

/**
 * Runs `f`, which must be synchronous, as a training forward: layers inside read the options. Outside `training` there are no options,
 * and layers compute as in inference.
 *
 * `valueAndGrad((p) => training({ seed: step, dropPath: 0.1, checkpointing: true }, () => loss(p)))(params)`
 */
export const training = <A>(options: TrainingOptions, f: () => A): A => withState({ options, masks: 0 }, f)

/** The options of the current training forward; `undefined` in inference. */
export const trainingOptions = (): TrainingOptions | undefined => current?.options

/** A seed for the next dropout mask of the current forward. Throws a `RangeError` outside `training`. */
export const nextDropoutSeed = (): number => {
  if (!current) throw new RangeError('nextDropoutSeed: called outside of training(…)')
  return Math.imul(current.options.seed, 0x9e3779b1) ^ Math.imul(++current.masks, 0x85ebca6b)
}

/** Captures the present state, and returns a function that runs `f` later with the same options and the same dropout masks. */
export const captureTraining = (): (<A>(f: () => A) => A) => {
  const captured = current && { ...current }
  return (f) => withState(captured && { ...captured }, f)
}
