import { runTrainer } from '../../../generation/train/trainer.js'
import { selectEngine } from '../../../lib/engines/index.js'
import { line, points, settings } from './regression.js'

// Training in a separate process for the test that kills it: prints each loss and saves every third step.
const callback = { onStepEnd: ({ step, loss }: { step: number; loss: number }) => console.log(`${step} ${loss}`) }
const slowly = async function* (position: number) {
  for (const batch of points(position)) {
    await new Promise((done) => setTimeout(done, 20))
    yield batch
  }
}
await selectEngine()
await runTrainer(line(), slowly, { ...settings, checkpoints: process.argv[2]!, saveSteps: 3, steps: 1000, callbacks: [callback] })
