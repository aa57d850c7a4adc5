/** What a forward does while training, and nothing of it otherwise. */
export interface Training {
  /** Same seed, same forward: what is dropped depends on it alone. */
  readonly seed: number
  /** Share of the vision layers' outputs that is set to 0 (`hidden_dropout_prob`). */
  readonly dropout?: number
  /** Share of samples whose branch is left out in the last vision layer; none in the first, a line between. */
  readonly dropPath?: number
  /** Keep what goes into a layer only, and compute the layer again on the way back. */
  readonly checkpointing?: boolean
}

/** A forward under way: its options, and how many masks it has drawn. */
interface Running {
  readonly options: Training
  draws: number
}

let running: Running | undefined

const within = <A>(state: Running | undefined, f: () => A): A => {
  const before = running
  running = state
  try {
    return f()
  } finally {
    running = before
  }
}

/**
 * Runs `f` as a training forward. The options are a value that layers read, as an argument of every one of them would be, without
 * naming it everywhere; outside `training` there is none, and inference computes as if none existed.
 *
 * `valueAndGrad((p) => training({ seed: step, dropPath: 0.1, checkpointing: true }, () => loss(p)))(params)`
 */
export const training = <A>(options: Training, f: () => A): A => within({ options, draws: 0 }, f)

/** The options of the forward under way; none in inference. */
export const trainingOptions = (): Training | undefined => running?.options

/** A seed for the next mask of the forward under way. */
export const nextSeed = (): number => {
  if (!running) throw new RangeError('nextSeed: no training forward is under way')
  return Math.imul(running.options.seed, 0x9e3779b1) ^ Math.imul(++running.draws, 0x85ebca6b)
}

/** Runs something again later exactly as it would run now: the same options, the same masks. */
export const rememberTraining = (): (<A>(f: () => A) => A) => {
  const then = running && { ...running }
  return (f) => within(then && { ...then }, f)
}
