import { load } from '../../../generation/checkpoint/load.js'
import { type ExplainMethod, explainMethods } from '../../../generation/explain/methods.js'
import { colourScene, type Truth, truthOf } from './truth.js'

/**
 * `npm run test:explain [scenes] [method …]`: whether the map of the colour word lies on the shape, over nearly square rendered scenes of seed 20;
 * for the wide and tall scenes between them the first column alone.
 */
const [count = '100', ...chosen] = process.argv.slice(2)
const methods = (chosen.length > 0 ? chosen : explainMethods) as readonly ExplainMethod[]
const internvl = await load()
const mean = (values: readonly number[]): string => (values.reduce((sum, value) => sum + value, 0) / values.length).toFixed(3)
console.log(
  '| method | most of its mass on the shape | in wide and tall images | peak on the shape | mean mass | insertion | deletion | seconds a scene |'
)
console.log('|---|---|---|---|---|---|---|---|')
for (const method of methods) {
  const [start, truths, ofLong]: [number, Truth[], Truth[]] = [performance.now(), [], []]
  let numScenes = 0
  for (; truths.length < Number(count); numScenes++) {
    const scene = colourScene(20, numScenes)
    const truth = await truthOf(internvl, scene, { method })
    if (truth) (scene.isLong ? ofLong : truths).push(truth)
    if (numScenes % 10 === 9) process.stderr.write(`${method}: ${truths.length} of ${count} scenes\n`)
  }
  const seconds = (performance.now() - start) / 1000 / numScenes
  const share = (all: readonly Truth[], holds: (truth: Truth) => boolean): string =>
    `${all.filter(holds).length} of ${all.length}`
  const isOnShape = ({ mass }: Truth) => mass > 0.5
  const means = (['mass', 'insertion', 'deletion'] as const).map((name) => mean(truths.map((truth) => truth[name])))
  const cells = [
    share(truths, isOnShape),
    share(ofLong, isOnShape),
    share(truths, ({ hit }) => hit),
    ...means,
    seconds.toFixed(1)
  ]
  console.log(`| ${method} | ${cells.join(' | ')} |`)
}
internvl.dispose()
