import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import type { Messages } from '../../processors/messages.js'
import { loadWithProgress, say } from './common.js'

interface Scene {
  readonly pictures: readonly string[]
  readonly questions: readonly string[]
}

/** The pictures beside this file, and what to ask about them. */
const scenes: readonly Scene[] = [
  { pictures: ['shapes.png'], questions: ['Describe the image.', 'What color is the shape at the bottom left?'] },
  { pictures: ['circles.png'], questions: ['How many circles are there?', 'What is the background color?'] },
  { pictures: ['circles.png', 'shapes.png'], questions: ['Which picture has more shapes?'] },
  { pictures: [], questions: ['Who are you?'] }
]

const path = (name: string): string => fileURLToPath(new URL(`../demo/${name}`, import.meta.url))

const conversation = ({ pictures }: Scene, question: string): Messages => [
  {
    role: 'user',
    content: [...pictures.map((name) => ({ type: 'image', path: path(name) }) as const), { type: 'text', text: question }]
  }
]

const demo = async (): Promise<void> => {
  const begun = performance.now()
  const internvl = await loadWithProgress({})
  const { streamAnswers } = await import('../answer.js')
  const { engine } = internvl
  say(`engine: ${engine.name} (${engine.why}); model loaded in ${((performance.now() - begun) / 1000).toFixed(1)} s`)
  for (const scene of scenes) {
    if (scene.pictures.length > 0) console.log(`\n[${scene.pictures.map((name) => `generation/demo/${name}`).join(', ')}]`)
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
  new Command('demo')
    .description('answer questions about a few pictures with the small model that ships with the package')
    .action(demo)
