import { selectEngine } from '../../../lib/engines/index.js'
import { type Job, measure } from './measure.js'
import { profile } from './profile.js'
import { measureTraining, type TrainJob } from './train.js'

// One measurement in this process: `tsx child.ts measure|profile|train '{…a job as JSON…}'` prints a line of JSON, or says what is wrong.

const known = ['InternVLError', 'RangeError', 'ShapeError']

try {
  const [what, text] = process.argv.slice(2)
  const job = JSON.parse(text!) as Job & TrainJob
  await selectEngine()
  const work = { measure, profile, train: measureTraining }[what as 'measure' | 'profile' | 'train']
  console.log(JSON.stringify(await work(job)))
} catch (error) {
  const { name, message, stack } = error as Error
  process.stderr.write(`${known.includes(name) ? message : stack}\n`)
  process.exitCode = 1
}
