import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { assemble } from '../../generation/assemble/assemble.js'
import { sceneSample, type Task } from '../../generation/demo/scenes.js'
import { orThrow } from '../../lib/error.js'
import { encodePng } from '../../processors/image/draw.js'
import type { Rgb } from '../../processors/image/resize.js'
import { realTower } from './real-tower.js'
import { realWeights } from './real-weights.js'

// Prepares the recipe of docs/assembling.md in a folder: a model put together from learned parts, rendered scenes, and the settings of both stages.

const weights: Partial<Record<Task, number>> = { color: 3, where: 3, count: 2, background: 1 }
const rows = { train: 4800, questions: 240 } as const
const seeds = { train: 11, questions: 12 } as const

/** The content of a scene's question. */
type Question = readonly [{ readonly image: Rgb }, { readonly text: string }]

/** Writes scenes as PNG files and rows of conversations. */
const writeScenes = async (folder: string, name: keyof typeof rows): Promise<void> => {
  await mkdir(join(folder, name), { recursive: true })
  const lines: string[] = []
  for (let index = 0; index < rows[name]; index++) {
    const { task, messages } = sceneSample(seeds[name], index, weights)
    const [content, answer] = messages.map((message) => message.content) as unknown as readonly [Question, string]
    const [{ image }, { text }] = content
    const file = `${name}/${index}.png`
    await writeFile(join(folder, file), await encodePng(image))
    const conversations = [
      { from: 'human', value: `<image>\n${text}` },
      { from: 'gpt', value: answer }
    ]
    lines.push(JSON.stringify({ id: `${index}`, task, image: file, conversations }))
  }
  await writeFile(join(folder, `${name}.jsonl`), `${lines.join('\n')}\n`)
}

const [folder = 'two-stage'] = process.argv.slice(2)
const at = (name: string): string => join(folder, name)
const projector = 'model.multi_modal_projector.**'
const common = { data: at('train.jsonl'), log: { steps: 5 }, save: { steps: 100 }, batch: { size: 8, maxPatches: 1 } }
const stages = {
  projector: {
    ...{ ...common, model: at('base'), output: at('projector'), steps: 120 },
    ...{ train: { only: [projector] }, optimizer: { learningRate: 1e-3 } }
  },
  lora: {
    ...{ ...common, model: at('projector'), output: at('tuned'), steps: 60, seed: 1 },
    ...{ train: { only: [projector] }, lora: { rank: 16 }, optimizer: { learningRate: 4e-4 } }
  }
}

const learned = await orThrow(realWeights())
const vision = await realTower(learned)
await assemble({ vision, decoder: learned.smollm2, out: at('base'), imageSize: 112, maxPatches: 1, seed: 1, force: true })
for (const name of ['train', 'questions'] as const) await writeScenes(folder, name)
for (const [name, settings] of Object.entries(stages))
  await writeFile(at(`${name}.json`), `${JSON.stringify(settings, null, 2)}\n`)
console.log(`${folder}: ready`)
