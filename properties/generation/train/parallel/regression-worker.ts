import { setTimeout as sleep } from 'node:timers/promises'
import { workerShare } from '../../../../generation/train/parallel/worker-share.js'
import { runTrainer } from '../../../../generation/train/trainer.js'
import { joinWorkers } from '../../../../lib/distributed/join-workers.js'
import { selectEngine } from '../../../../lib/engines/index.js'
import { getOrThrow, orThrow } from '../../../../lib/error.js'
import { line, pointsAt, settings } from '../regression.js'

// One worker of a regression, for tests with processes that are killed: `<rank> <addresses> <checkpoints> <steps> <ms between steps> <zero>`.
const print = (value: unknown) => console.log(JSON.stringify(value))
const [rank, addresses, checkpoints, steps] = [Number(process.argv[2]), process.argv[3]!.split(','), process.argv[4]!, Number(process.argv[5])] // biome-ignore format: one line
const [pause, zero] = [Number(process.argv[6]), process.argv[7] === '1' ? 1 : 0] as const
const gradientAccumulation = 4
try {
  const group = await orThrow(joinWorkers({ addresses, rank, timeoutSeconds: 30 }))
  await selectEngine()
  const share = getOrThrow(workerShare(rank, group.size, { batchSize: 4, gradientAccumulation }))
  const batches = async function* (position: number) {
    for (let at = position + share.group; ; at += share.groups) {
      await sleep(pause)
      yield pointsAt(at)
    }
  }
  const onStepEnd = ({ step, loss }: { readonly step: number; readonly loss: number }) => print({ step, loss })
  const options = {
    ...settings,
    checkpoints,
    gradientAccumulation,
    steps,
    saveSteps: 3,
    resume: true,
    callbacks: [{ onStepEnd }]
  }
  const { params } = await runTrainer(line(), batches, { ...options, parallel: { group, share, zero } })
  print({ params: [...params.weight.dataSync(), ...params.bias.dataSync()] })
  await group.barrier()
} catch (error) {
  print({ error: (error as Error).message })
  process.exitCode = 1
}
