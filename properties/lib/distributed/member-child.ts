import { setTimeout as sleep } from 'node:timers/promises'
import { allReduceTree, gatherSlices, ownSlices } from '../../../lib/distributed/buckets.js'
import { joinWorkers } from '../../../lib/distributed/join-workers.js'
import { selectEngine } from '../../../lib/engines/index.js'
import { orThrow } from '../../../lib/error.js'
import { tf } from '../../../lib/tf.js'

// One worker of the tests: joins, prints results of every operation, then waits in a barrier, fails, or is killed.
const print = (value: unknown) => console.log(JSON.stringify(value))
const [rank, addresses, ending] = [Number(process.argv[2]), process.argv[3]!.split(','), process.argv[4]]
try {
  const group = await orThrow(joinWorkers({ addresses, rank, timeoutSeconds: 30 }))
  await selectEngine()
  const x = tf.tensor2d([[rank + 1, 0.5]])
  const tree = { a: tf.fill([3, 2], rank), b: { c: tf.tensor1d([1, 2, 3, 4, 5]) } }
  const gathered = await gatherSlices(group, ownSlices(group, tree), new Map([['a', [3, 2]], ['b.c', [5]]])) // biome-ignore format: one line
  const summed = await allReduceTree(group, tree)
  print({
    sum: [...(await group.allReduce(x)).dataSync()],
    rows: [...(await group.allGather(x)).dataSync()],
    json: await group.gather({ rank, text: 'ä'.repeat(rank) }),
    first: await group.broadcast(`from ${rank}`),
    tree: [[...summed.a.dataSync()], [...summed.b.c.dataSync()]],
    slices: [[...gathered.a.dataSync()], [...gathered.b.c.dataSync()]],
    traffic: group.traffic().bytes
  })
  if (ending === 'reports' && rank === 1) {
    group.reportError('the disk is full')
    process.exit(1)
  }
  if (ending === 'waits' && rank === 1) await sleep(60000)
  if (ending === 'computes') {
    const end = performance.now() + 60000
    group.whileComputing(() => {
      while (performance.now() < end); // no turn of the event loop, as in a step of training
    })
  }
  await group.barrier()
  print({ done: true })
} catch (error) {
  print({ error: (error as Error).message })
  process.exitCode = 1
}
