import { selectEngine } from '../../../lib/engines/index.js'
import { isExpectedError } from '../../../lib/error.js'
import { type ContextJob, measureContextSteps } from './context-steps.js'
import { type Job, measure } from './measure.js'
import { profile } from './profile.js'
import { measureTraining, type TrainJob } from './training-steps.js'

// Runs one measurement in this process: `tsx child.ts measure|profile|train|context JOB`, with the job as JSON, prints one line of JSON.

type Action = 'measure' | 'profile' | 'train' | 'context'

try {
  const [action, text] = process.argv.slice(2)
  const job = JSON.parse(text!) as Job & TrainJob & ContextJob
  await selectEngine()
  const work = { measure, profile, train: measureTraining, context: measureContextSteps }[action as Action]
  console.log(JSON.stringify(await work(job)))
} catch (error) {
  process.stderr.write(`${isExpectedError(error) ? error.message : (error as Error).stack}\n`)
  process.exitCode = 1
}
