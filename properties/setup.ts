import { selectEngine } from '../lib/engines/index.js'

/** Every test file runs on the engine that `INTERNVL_ENGINE` names, else on the best one at hand. */
export const mochaGlobalSetup = async (): Promise<void> => {
  const { name, version, why } = await selectEngine()
  process.stderr.write(`engine: ${name} ${version} (${why})\n`)
}
