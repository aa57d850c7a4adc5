import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { demoModel, type InternVLCheckpoint, load } from '../../generation/checkpoint/load.js'
import { getOrThrow, orThrow } from '../../lib/error.js'
import { buildParams, disposeParams } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import { saveModel } from '../../models/checkpoint/save-model.js'
import { parseConfig } from '../../models/config/parse-config.js'
import { internVL } from '../../models/internvl/internvl.js'
import { saveAdapter } from '../../models/lora/adapter.js'
import { addLora } from '../../models/lora/lora.js'
import { demoConfig, processorConfig } from './base-files.js'

/** Folder of the sample images and videos. */
export const samples = fileURLToPath(new URL('../processors', import.meta.url))

/** Folders of a small model that inputs change copies of. */
export interface Fixture {
  /** The model in one file. */
  readonly single: string
  /** The model in several shards with an index. */
  readonly sharded: string
  /** A LoRA adapter of the model. */
  readonly adapter: string
  /** The unchanged model, loaded. */
  readonly internvl: InternVLCheckpoint
  /** An empty folder for one input, removed before the next input. */
  readonly work: () => string
  readonly dispose: () => void
}

const processorFiles = ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja', 'generation_config.json']

/** Makes the folders under the system's folder of temporary files, and loads the model. */
export const makeFixture = async (): Promise<Fixture> => {
  const root = mkdtempSync(join(tmpdir(), 'internvl-fuzz-'))
  const [single, sharded, adapter, workDir] = ['single', 'sharded', 'adapter', 'work'].map((name) => join(root, name)) as [string, string, string, string] // biome-ignore format: one line
  const config = getOrThrow(parseConfig(demoConfig))
  const module = internVL(config)
  let seed = 0
  const params = buildParams(module, (path, { shape }) =>
    path.endsWith('norm.weight') ? tf.ones([...shape]) : tf.randomNormal([...shape], 0, 0.3, 'float32', ++seed)
  ) as Parameters<typeof module.apply>[0]
  const files = new Map<string, string | Uint8Array>([
    ...processorFiles.map((name) => [name, readFileSync(join(demoModel, name))] as const),
    ['processor_config.json', JSON.stringify(processorConfig)]
  ])
  await orThrow(saveModel(single, { config, params, files, dtype: 'bfloat16' }))
  await orThrow(saveModel(sharded, { config, params, files, dtype: 'bfloat16', shardBytes: 8192 }))
  const withLora = getOrThrow(addLora(params, { rank: 2, alpha: 4, targets: ['q_proj', 'down_proj'], seed: 1 }))
  await orThrow(saveAdapter(adapter, withLora, { base: single }))
  disposeParams(withLora)
  disposeParams(params)
  const internvl = await load(single)
  return {
    single,
    sharded,
    adapter,
    internvl,
    work: () => {
      rmSync(workDir, { recursive: true, force: true })
      mkdirSync(workDir)
      return workDir
    },
    dispose: () => {
      internvl.dispose()
      rmSync(root, { recursive: true, force: true })
    }
  }
}

/** A copy of a folder in the fixture's work folder, with other contents of some files. */
export const copyWith = (fixture: Fixture, from: string, files: Readonly<Record<string, string | Uint8Array>>): string => {
  const dir = fixture.work()
  cpSync(from, dir, { recursive: true })
  for (const [name, content] of Object.entries(files)) writeFileSync(join(dir, name), content)
  return dir
}
