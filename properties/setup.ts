import fc from 'fast-check'
import { selectEngine } from '../lib/engines/index.js'

// Every run draws the same values; `PROPERTY_SEED` draws others. A failure prints the seed and the path to replay it.
fc.configureGlobal({ seed: Number(process.env.PROPERTY_SEED ?? 20) })

// Loaded before any test: every one runs on the engine that `INTERNVL_ENGINE` names, else on the best one at hand.
const { name, version, why } = await selectEngine()
process.stderr.write(`engine: ${name} ${version}, for ${why}\n`)
