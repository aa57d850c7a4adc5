import { Command, Option } from 'commander'
import { getOrThrow, orThrow } from '../../../../lib/error.js'
import type { Explanation } from '../../../explain/explain.js'
import { type ExplainMethod, explainMethods } from '../../../explain/methods.js'
import {
  answerOptions,
  appendValue,
  info,
  loadWithProgress,
  type ModelFlags,
  positiveInteger,
  progressBar,
  withModelOptions
} from '../../common.js'

interface ExplainFlags extends ModelFlags {
  readonly image: readonly string[]
  readonly out: string
  readonly method: ExplainMethod
  readonly token?: string
  readonly by: 'word' | 'token'
  readonly answer?: string
  readonly imageIndex?: number
  readonly cells?: number
  readonly steps?: number
  readonly json?: true
}

/** The pixel with the largest value of a map. */
const peakOf = async (map: Explanation['parts'][number]['map']): Promise<{ readonly x: number; readonly y: number }> => {
  const values = (await map.data()) as Float32Array
  const at = values.reduce((best, value, i) => (value > values[best]! ? i : best), 0)
  return { x: at % map.shape[1], y: Math.floor(at / map.shape[1]) }
}

const report = async ({ answer, method, parts, image }: Explanation, { out }: ExplainFlags, model: string) => ({
  answer,
  method,
  width: image.width,
  height: image.height,
  parts: await Promise.all(parts.map(async ({ text, tokens, map }) => ({ text, tokens, peak: await peakOf(map) }))),
  out,
  model
})

const explainAnswer = async (question: string, flags: ExplainFlags): Promise<void> => {
  const { imageFormatOf, writeImageFile } = await import('../../../../processors/image/draw.js')
  getOrThrow(imageFormatOf(flags.out)) // fails before the model is loaded
  const internvl = await loadWithProgress(flags)
  const { explain } = await import('../../../explain/explain.js')
  const { heatStrip } = await import('../../../explain/heat-image.js')
  const { method, by, token, answer, imageIndex: image, cells, steps } = flags
  const content = [...flags.image.map((path) => ({ type: 'image', path }) as const), { type: 'text', text: question } as const]
  const progress = progressBar('explaining', 1, 'forwards')
  const chosen = { method, by, token, answer, image, cells, steps, ...answerOptions(flags), onProgress: progress.update }
  try {
    const explanation = await explain(internvl, [{ role: 'user', content }], chosen).finally(progress.stop)
    await orThrow(writeImageFile(await heatStrip(explanation), flags.out))
    info(`${flags.out}: ${explanation.parts.map(({ text }) => text).join(' ')}`)
    const whole = await report(explanation, flags, internvl.dir)
    process.stdout.write(`${flags.json ? JSON.stringify(whole, null, 2) : explanation.answer}\n`)
    explanation.dispose()
  } finally {
    internvl.dispose()
  }
}

/** `internvl explain`: heat maps over an image, one for each word of the answer. */
export const explainCommand = (): Command =>
  withModelOptions(new Command('explain'))
    .description('answer a question about an image, and draw where each word of the answer comes from')
    .argument('<question>', 'the question about the image')
    .requiredOption('-i, --image <path>', 'image file, http(s) or data URL, or base64; may be repeated', appendValue)
    .option('-o, --out <file>', 'image to write: the input, then a heat map for each word (.png, .jpg, .webp)', 'heat.png')
    .addOption(
      new Option(
        '--method <name>',
        'occlusion: cells of the image are covered; gradient: integrated gradients of the pixels; attention, rollout: of the decoder'
      )
        .choices(explainMethods)
        .default('occlusion')
    )
    .option('--token <word>', 'a map for this word of the answer only')
    .addOption(new Option('--by <part>', 'a map for each word, or for each token').choices(['word', 'token']).default('word'))
    .option('--answer <text>', 'explain this answer instead of the answer of the model')
    .option('--image-index <n>', 'the image to explain where several are given; 0: the first', Number)
    .option('--cells <n>', 'occlusion: cells along the longer side of the image; default: 12', positiveInteger)
    .option('--steps <n>', 'gradient: steps of the integral; default: 16', positiveInteger)
    .option('--json', 'print answer, words and the peak of each map as JSON')
    .addHelpText('after', '\nExample:\n  internvl explain --image photo.jpg "What color is the car?" --out heat.png --token red')
    .action(explainAnswer)
