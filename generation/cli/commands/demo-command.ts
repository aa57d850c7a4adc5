import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import type { ContentItem, Messages } from '../../../processors/text/messages.js'
import { loadWithProgress, say } from '../common.js'
import { type PrecisionFlags, withPrecisionOptions } from '../flags/precision-flags.js'

interface Scene {
  /** Pictures, or folders of a film's frames, beside this file. */
  readonly show: readonly string[]
  readonly questions: readonly string[]
}

const scenes: readonly Scene[] = [
  {
    show: ['shapes.png'],
    questions: ['Describe the image.', 'What color is the shape at the bottom left?', 'What is at the top right?']
  },
  { show: ['circle.png'], questions: ['What color is the background?', 'How many circles are there?'] },
  { show: ['squares.png', 'shapes.png'], questions: ['Which picture has more shapes?'] },
  { show: ['film'], questions: ['What happens in this video?'] },
  { show: [], questions: ['Who are you?'] }
]

const item = (name: string): ContentItem => ({
  type: name.endsWith('.png') ? 'image' : 'video',
  path: fileURLToPath(new URL(`../../demo/${name}`, import.meta.url))
})

const conversation = ({ show }: Scene, question: string): Messages => [
  { role: 'user', content: [...show.map(item), { type: 'text', text: question }] }
]

const demo = async (flags: PrecisionFlags): Promise<void> => {
  const begun = performance.now()
  const internvl = await loadWithProgress(flags)
  const { streamAnswers } = await import('../../answer.js')
  const { engine } = internvl
  say(`engine: ${engine.name} (${engine.why}); model loaded in ${((performance.now() - begun) / 1000).toFixed(1)} s`)
  for (const scene of scenes) {
    if (scene.show.length > 0) console.log(`\n[${scene.show.map((name) => `generation/demo/${name}`).join(', ')}]`)
    for (const question of scene.questions) {
      process.stdout.write(`\n> ${question}\n`)
      const stream = streamAnswers(internvl, [conversation(scene, question)])
      let next = await stream.next()
      for (; !next.done; next = await stream.next()) process.stdout.write(next.value[0]!)
      const { newTokens, firstTokenSeconds, decodeSeconds } = next.value.timings
      process.stdout.write('\n')
      say(
        `  first token ${(firstTokenSeconds * 1000).toFixed(0)} ms, ${newTokens} tokens in ${(decodeSeconds * 1000).toFixed(0)} ms`
      )
    }
  }
  internvl.dispose()
}

/** `internvl demo`: questions about the pictures that ship with the package, answered by the model that ships with it. */
export const demoCommand = (): Command =>
  withPrecisionOptions(new Command('demo'))
    .description('answer questions about a few pictures with the small model that ships with the package')
    .action(demo)
