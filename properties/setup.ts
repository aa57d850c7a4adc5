import { selectEngine } from '../lib/engines/index.js'

// Loaded before any test: every one runs on the engine that `INTERNVL_ENGINE` names, else on the best one at hand.
const { name, version, why } = await selectEngine()
process.stderr.write(`engine: ${name} ${version}, for ${why}\n`)
