import { load } from '../../../generation/checkpoint/load.js'
import { type ExplainMethod, explainMethods } from '../../../generation/explain/methods.js'
import { colourScene, type Truth, truthOf } from './truth.js'

/** `npm run test:explain [scenes] [method …]`: whether the map of the colour word lies on the shape, over rendered scenes of seed 20. */
const [count = '100', ...chosen] = process.argv.slice(2)
const methods = (chosen.length > 0 ? chosen : explainMethods) as readonly ExplainMethod[]
const internvl = await load()
const mean = (values: readonly number[]): string => (values.reduce((sum, value) => sum + value, 0) / values.length).toFixed(3)
console.log('| method | most of its mass on the shape | peak on the shape | mean mass | insertion | deletion | seconds a scene |')
console.log('|---|---|---|---|---|---|---|')
for (const method of methods) {
  const [start, truths]: [number, Truth[]] = [performance.now(), []]
  for (let i = 0; i < Number(count); i++) {
    const truth = await truthOf(internvl, colourScene(20, i), { method })
    if (truth) truths.push(truth)
    if (i % 10 === 9) process.stderr.write(`${method}: ${i + 1} of ${count} scenes\n`)
  }
  const seconds = (performance.now() - start) / 1000 / Number(count)
  const share = (holds: (truth: Truth) => boolean): string => `${truths.filter(holds).length} of ${truths.length}`
  const means = (['mass', 'insertion', 'deletion'] as const).map((name) => mean(truths.map((truth) => truth[name])))
  console.log(
    `| ${method} | ${share(({ mass }) => mass > 0.5)} | ${share(({ hit }) => hit)} | ${means.join(' | ')} | ${seconds.toFixed(1)} |`
  )
}
internvl.dispose()
