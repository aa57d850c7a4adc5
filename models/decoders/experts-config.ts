import { count, type Fields, flag, type Json, number } from '../config/config-fields.js'
import type { ExpertsConfig } from '../config/config-types.js'
import { mostExperts } from '../config/number-bounds.js'

/** Fields of config.json that all mixtures of experts have. The number of experts has had two names. */
export const expertsConfig = (f: Fields, defaultPerToken: number, numHiddenLayers: number): ExpertsConfig => {
  const numExperts = f('num_local_experts|num_experts', count, 128)
  const numExpertsPerToken = f('num_experts_per_tok', count, defaultPerToken)
  if (numExpertsPerToken > numExperts)
    f.note('num_experts_per_tok', `a positive integer, at most the number of experts, ${numExperts}`)
  const most = Math.floor(mostExperts / numHiddenLayers)
  if (numExperts > most)
    f.note(
      f.has('num_local_experts|num_experts') ?? 'num_experts',
      `a positive integer, at most ${most} for ${numHiddenLayers} layers`
    )
  return {
    numExperts,
    numExpertsPerToken,
    routerAuxLossCoef: f('router_aux_loss_coef', number, 0.001),
    outputRouterLogits: f('output_router_logits', flag, false)
  }
}

/** The JSON of `expertsConfig`. */
export const expertsJson = (c: ExpertsConfig): Json => ({
  num_experts_per_tok: c.numExpertsPerToken,
  router_aux_loss_coef: c.routerAuxLossCoef,
  output_router_logits: c.outputRouterLogits,
  num_local_experts: c.numExperts
})
