// Loads a checkpoint folder and saves it as another: `save-folder.ts FROM TO DTYPE`, for open_saved.py.
import { load } from '../../../generation/checkpoint/load.js'
import { save } from '../../../generation/checkpoint/save.js'
import type { WeightType } from '../../../models/checkpoint/save-model.js'

const [from, to, dtype] = process.argv.slice(2) as [string, string, WeightType]
const { config, params, dispose } = await load(from)
await save(to, { config, params, dtype, processorFilesFrom: from, shardBytes: 100_000 })
dispose()
