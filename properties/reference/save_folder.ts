// Opens a checkpoint folder and saves it as another: `save_folder.ts FROM TO DTYPE`, for open_saved.py.
import { load } from '../../generation/load.js'
import { save } from '../../generation/save.js'
import type { WeightType } from '../../models/save.js'

const [from, to, dtype] = process.argv.slice(2) as [string, string, WeightType]
const { config, params, dispose } = await load(from)
await save(to, { config, params, dtype, processorFilesFrom: from, shardBytes: 100_000 })
dispose()
