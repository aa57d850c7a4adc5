/** Dynamic loss scaling of float16 training: the factor on the loss, and the number of steps with finite gradients since it changed. */
export interface LossScale {
  readonly scale: number
  readonly goodSteps: number
}

/** The defaults of `torch.amp.GradScaler`: growth every 2000 steps. */
const [growthInterval, growth] = [2000, 2]

/** The scale before the first step. */
const initialLossScale: LossScale = { scale: 2 ** 16, goodSteps: 0 }

/** The scale after a step: half after gradients that overflowed, twice after 2000 steps without an overflow. Source: `torch.amp.GradScaler`. */
export const nextLossScale = ({ scale, goodSteps }: LossScale, hasFiniteGradients: boolean): LossScale => {
  if (!hasFiniteGradients) return { scale: scale / growth, goodSteps: 0 }
  return goodSteps + 1 < growthInterval ? { scale, goodSteps: goodSteps + 1 } : { scale: scale * growth, goodSteps: 0 }
}

/**
 * The scale of the loss of the next step: 1, except in float16. `after` takes the norm of the scaled gradient: the fields that the next
 * state gets, and whether the step is skipped because the gradient overflowed.
 */
export const lossScaling = (
  { lossScale = initialLossScale }: { readonly lossScale?: LossScale },
  precision: string | undefined
) => {
  const isScaled = precision === 'float16'
  const after = (norm: number) => {
    const next = nextLossScale(lossScale, Number.isFinite(norm))
    return {
      lossScale: isScaled ? { lossScale: next } : {},
      isSkipped: isScaled && !Number.isFinite(norm) && next.scale >= 1
    }
  }
  return { scale: isScaled ? lossScale.scale : 1, after }
}
