import { selectEngine } from '../../lib/engines/index.js'
import { type Job, measure } from './measure.js'
import { profile } from './profile.js'

// One measurement in this process: `tsx child.ts measure|profile '{…a job as JSON…}'` prints a line of JSON, or says what is wrong.

const known = ['InternVLError', 'RangeError', 'ShapeError']

try {
  const [what, text] = process.argv.slice(2)
  const job = JSON.parse(text!) as Job
  await selectEngine()
  console.log(JSON.stringify(await (what === 'profile' ? profile(job) : measure(job))))
} catch (error) {
  const { name, message, stack } = error as Error
  process.stderr.write(`${known.includes(name) ? message : stack}\n`)
  process.exitCode = 1
}
