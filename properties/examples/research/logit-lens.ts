import type { InternVLCheckpoint } from '../../../generation/root.js'
import { tap } from '../../../lib/tap/tap.js'
import { inputsOf, nextProbabilities } from './scene.js'

/**
 * The logit lens: the probability of a token if the decoder ended after its first 0, 1, … layers. The layers that follow return their input.
 * Source: nostalgebraist 2020.
 */
export const logitLens = async (internvl: InternVLCheckpoint, image: string, token: number): Promise<readonly number[]> => {
  const inputs = await inputsOf(internvl, image)
  const layers = internvl.config.textConfig.numHiddenLayers
  const probabilities = Array.from({ length: layers + 1 }, (_, depth) => {
    const skipped = Array.from({ length: layers - depth }, (_, i) => `language_model.layers.${depth + i}`)
    const shortened = tap(internvl, Object.fromEntries(skipped.map((path) => [path, (_: unknown, { inputs: [x] }: { inputs: readonly unknown[] }) => x as never]))) // biome-ignore format: one line
    return nextProbabilities(skipped.length > 0 ? shortened : internvl, inputs)[token]!
  })
  inputs.dispose()
  return probabilities
}
