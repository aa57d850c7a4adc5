import { selectEngine } from '../lib/tf.js'

/** Every test file runs on the engine that `INTERNVL_ENGINE` names, else on the best one at hand. */
export const mochaGlobalSetup = async (): Promise<void> => {
  await selectEngine()
}
