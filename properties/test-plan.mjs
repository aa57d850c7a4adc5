// Prints the plan of `npm test` before the engine is set up: one line on standard error.
import { readdirSync } from 'node:fs'

const files = readdirSync(new URL('.', import.meta.url), { recursive: true }).filter(
  (name) => `${name}`.endsWith('.test.ts') && !`${name}`.includes('node_modules')
)
const engine = process.env.INTERNVL_ENGINE ? `the ${process.env.INTERNVL_ENGINE} engine` : 'the fastest available engine'
process.stderr.write(
  `npm test: ${files.length} test files on ${engine}, about 10 minutes on two cores; a missing native engine is set up first\n`
)
