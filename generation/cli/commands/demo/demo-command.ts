import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import type { ContentItem, Messages } from '../../../../processors/text/messages.js'
import { info, loadWithProgress } from '../../common.js'
import { type PrecisionFlags, withPrecisionOptions } from '../../flags/precision-flags.js'

interface Scene {
  /** Image files, or folders of video frames, in generation/demo. */
  readonly media: readonly string[]
  readonly questions: readonly string[]
}

const scenes: readonly Scene[] = [
  {
    media: ['shapes.png'],
    questions: ['Describe the image.', 'What color is the shape at the bottom left?', 'What is at the top right?']
  },
  { media: ['circle.png'], questions: ['What color is the background?', 'How many circles are there?'] },
  { media: ['squares.png', 'shapes.png'], questions: ['Which picture has more shapes?'] },
  { media: ['video'], questions: ['What happens in this video?'] },
  { media: [], questions: ['Who are you?'] }
]

const item = (name: string): ContentItem => ({
  type: name.endsWith('.png') ? 'image' : 'video',
  path: fileURLToPath(new URL(`../../../demo/${name}`, import.meta.url))
})

const conversation = ({ media }: Scene, question: string): Messages => [
  { role: 'user', content: [...media.map(item), { type: 'text', text: question }] }
]

const demo = async (flags: PrecisionFlags): Promise<void> => {
  const startTime = performance.now()
  const internvl = await loadWithProgress(flags)
  const { streamAnswers } = await import('../../../answer.js')
  const { engine } = internvl
  info(`engine: ${engine.name} (${engine.reason}); model loaded in ${((performance.now() - startTime) / 1000).toFixed(1)} s`)
  for (const scene of scenes) {
    if (scene.media.length > 0) console.log(`\n[${scene.media.map((name) => `generation/demo/${name}`).join(', ')}]`)
    for (const question of scene.questions) {
      process.stdout.write(`\n> ${question}\n`)
      const stream = streamAnswers(internvl, [conversation(scene, question)])
      let next = await stream.next()
      for (; !next.done; next = await stream.next()) process.stdout.write(next.value[0]!)
      const { newTokens, firstTokenSeconds, decodeSeconds } = next.value.timings
      process.stdout.write('\n')
      info(
        `  first token ${(firstTokenSeconds * 1000).toFixed(0)} ms, ${newTokens} tokens in ${(decodeSeconds * 1000).toFixed(0)} ms`
      )
    }
  }
  internvl.dispose()
}

/** `internvl demo`: the demo model of the package answers questions about the demo images. */
export const demoCommand = (): Command =>
  withPrecisionOptions(new Command('demo'))
    .description('answer questions about the demo images with the demo model of the package')
    .action(demo)
