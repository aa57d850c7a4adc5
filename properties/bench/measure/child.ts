import { selectEngine } from '../../../lib/engines/index.js'
import { type ContextJob, measureContextSteps } from './context-steps.js'
import { type Job, measure } from './measure.js'
import { profile } from './profile.js'
import { measureTraining, type TrainJob } from './training-steps.js'

// Runs one measurement in this process: `tsx child.ts measure|profile|train|context JOB`, with the job as JSON, prints one line of JSON.

type Action = 'measure' | 'profile' | 'train' | 'context'

const known = ['InternVLError', 'RangeError', 'ShapeError']

try {
  const [action, text] = process.argv.slice(2)
  const job = JSON.parse(text!) as Job & TrainJob & ContextJob
  await selectEngine()
  const work = { measure, profile, train: measureTraining, context: measureContextSteps }[action as Action]
  console.log(JSON.stringify(await work(job)))
} catch (error) {
  const { name, message, stack } = error as Error
  process.stderr.write(`${known.includes(name) ? message : stack}\n`)
  process.exitCode = 1
}
