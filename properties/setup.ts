import { selectEngine } from '../lib/engines/index.js'

// Loaded before the tests, which run on the engine named by `INTERNVL_ENGINE`, else on the fastest available engine.
const { name, version, reason } = await selectEngine()
process.stderr.write(`engine: ${name} ${version} (${reason})\n`)
