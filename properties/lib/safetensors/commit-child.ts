// Run by commit-kill.test.ts in a process of its own: writes two models in turn over one folder, until it is killed.
import { demoModel, load } from '../../../generation/checkpoint/load.js'
import { convert, save } from '../../../generation/checkpoint/save.js'
import { selectEngine } from '../../../lib/engines/index.js'

const [how, target, references] = process.argv.slice(2) as ['convert' | 'save', string, string?]
const dtypes = ['bfloat16', 'float32'] as const

const writer = async (): Promise<(i: number, folder: string) => Promise<unknown>> => {
  if (how === 'convert')
    return (i, folder) =>
      i % 2 === 0
        ? convert(demoModel, folder, { layout: 'hf', dtype: 'bfloat16', force: true })
        : convert(demoModel, folder, { layout: 'original', dtype: 'float32', shardBytes: 2e6, force: true })
  await selectEngine()
  const { config, params, dir } = await load()
  const options = { config, params, processorFilesFrom: dir }
  return (i, folder) => save(folder, { ...options, dtype: dtypes[i % 2]!, ...(i % 2 === 0 ? {} : { shardBytes: 2e6 }) })
}

const write = await writer()
for (const i of references ? [0, 1] : []) await write(i, `${references}${i}`) // the models as they are when nothing is killed
await write(0, target)
process.send?.('ready')
for (let i = 1; ; i++) await write(i, target)
