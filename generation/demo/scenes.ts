import { type Random, random } from '../../lib/random.js'
import type { Rgb } from '../../processors/image/resize.js'
import type { ContentItem, Messages } from '../../processors/text/messages.js'
import type { DatasetRow } from '../evaluate/eval-dataset.js'
import { renderGrounding } from '../grounding.js'
import {
  backgrounds,
  colours,
  drawShape,
  ground,
  type Item,
  keys,
  type Name,
  renderScene,
  type Scene,
  shapes
} from './render-scene.js'

/** Tasks, and the relative frequency of each. */
export const taskWeights = {
  describe: 5,
  count: 3,
  color: 3,
  where: 3,
  position: 4,
  find: 6,
  background: 1,
  video: 2,
  compare: 2,
  hello: 0.3
} as const

/**
 * The tasks, and two for training alone with several questions about one image: `positions` asks in words where shapes are, `quiz` also for
 * their boxes.
 */
export type Task = keyof typeof taskWeights | 'positions' | 'quiz'

const numbers = ['zero', 'one', 'two', 'three', 'four'] as const

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)
const article = (word: string): string => (/^[aeiou]/.test(word) ? 'an' : 'a')
const withArticle = ({ shape, colour }: Item): string => `${article(colour)} ${colour} ${shape}`

const description = (items: readonly Item[]): string => {
  const parts = items.map((item) => `${withArticle(item)} at the ${item.cell}`)
  return `There is ${parts.length === 1 ? parts[0] : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`}.`
}

type QuestionAnswer = readonly [question: string, answer: string]

/** A rendered task: images or a video, questions and correct answers. */
interface RenderedTask {
  readonly images?: readonly Rgb[]
  readonly video?: readonly Rgb[]
  readonly turns: readonly QuestionAnswer[]
}

const onScene =
  (questionAnswer: (rng: Random, scene: Scene) => QuestionAnswer) =>
  (rng: Random): RenderedTask => {
    const scene = renderScene(rng, { mayBeLong: true })
    return { images: [scene.image], turns: [questionAnswer(rng, scene)] }
  }

const nameOf = ({ shape, colour }: Name): string => `${colour} ${shape}`
const isNamed =
  ({ shape, colour }: Name) =>
  (item: Item) =>
    item.shape === shape && item.colour === colour

/** A name that is mostly not in the scene: any colour and shape, or those of two shapes of the scene, of which one alone misleads. */
const otherName = (rng: Random, items: readonly Item[]): Name =>
  rng.uniform() < 1 / 2
    ? { shape: rng.choice(shapes), colour: rng.choice(keys(colours)) }
    : { shape: rng.choice(items).shape, colour: rng.choice(items).colour }

/** The name of a shape in the scene, or for one question in eight another name. */
const drawName = (rng: Random, items: readonly Item[]): Name =>
  rng.uniform() < 1 / 8 ? otherName(rng, items) : rng.choice(items)

/** InternVL's grounding prompt. Source: the README of OpenGVLab/InternVL2-8B. */
const groundingPrompt = (label: string): string =>
  `Please provide the bounding box coordinate of the region this sentence describes: <ref>${label}</ref>`

const findAnswer = (name: Name, items: readonly Item[]): string => {
  const boxes = items.filter(isNamed(name)).map(({ box }) => box)
  return boxes.length === 0 ? `There is no ${nameOf(name)}.` : renderGrounding({ label: nameOf(name), boxes })
}

const positionAnswer = (name: Name, items: readonly Item[]): string => {
  const positions = items.filter(isNamed(name)).map(({ cell }) => `at the ${cell}`)
  return positions.length === 0 ? `There is no ${nameOf(name)}.` : `${capital(positions.join(' and '))}.`
}

const position = (rng: Random, { items }: Scene, name = drawName(rng, items)): QuestionAnswer => [
  `Where is the ${nameOf(name)}?`,
  positionAnswer(name, items)
]

const find = (rng: Random, { items }: Scene, name = drawName(rng, items)): QuestionAnswer => {
  const question = rng.uniform() < 0.2 ? groundingPrompt(nameOf(name)) : `Find the ${nameOf(name)}.`
  return [question, findAnswer(name, items)]
}

/**
 * A question about each name in a scene with at least two shapes, and about one other name. A model learns to look for a name from many questions
 * about one image; with one question about each image it had not learned to after 4,000 steps.
 */
const quiz =
  (shareOfBoxes: number) =>
  (rng: Random): RenderedTask => {
    const scene = renderScene(rng, { mayBeLong: true, counts: [2, 3, 3, 4], repeats: 1 / 8 })
    const distinct = scene.items.filter((item, i, all) => all.findIndex(isNamed(item)) === i)
    const names = rng.shuffled<Name>([...distinct, otherName(rng, scene.items)])
    return {
      images: [scene.image],
      turns: names.map((name) => (rng.uniform() < shareOfBoxes ? find : position)(rng, scene, name))
    }
  }

const movingShape = (rng: Random): RenderedTask => {
  const [shape, colour] = [rng.choice(shapes), rng.choice(keys(colours))]
  const direction = rng.choice(['left', 'right', 'up', 'down'] as const)
  const [side, background, frames] = [rng.integer(150, 300), rng.choice(keys(backgrounds)), rng.choice([3, 4])]
  const images = Array.from({ length: frames }, (_, i) => {
    const image = ground(side, side, background)
    const t = 0.2 + (0.6 * i) / (frames - 1)
    const along = direction === 'left' || direction === 'up' ? 1 - t : t
    const [x, y] = direction === 'left' || direction === 'right' ? [along, 0.5] : [0.5, along]
    drawShape(image, shape, colour, side * x, side * y, side * 0.16)
    return image
  })
  const question = rng.choice(['What happens in this video?', 'What moves, and where?'])
  return { video: images, turns: [[question, `The ${colour} ${shape} moves ${direction}.`]] }
}

const comparison = (rng: Random): RenderedTask => {
  const [a, b] = [renderScene(rng), renderScene(rng)]
  const more = Math.sign(a.items.length - b.items.length)
  const answer = more > 0 ? 'The first one.' : more < 0 ? 'The second one.' : 'They have the same number.'
  return { images: [a.image, b.image], turns: [['Which picture has more shapes?', answer]] }
}

const sceneMakers: Readonly<Record<Task, (rng: Random) => RenderedTask>> = {
  describe: onScene((rng, { items }) => [
    rng.choice(['Describe the image.', 'What is in this picture?', 'What do you see?']),
    description(items)
  ]),
  count: onScene((rng, { items }) => {
    const shape = rng.choice([...items.map((item) => item.shape), shapes[0]])
    const n = items.filter((item) => item.shape === shape).length
    return [`How many ${shape}s are there?`, `${capital(numbers[n]!)}.`]
  }),
  color: onScene((rng, { items }) => {
    const { colour, cell } = rng.choice(items)
    return [`What color is the shape at the ${cell}?`, `${capital(colour)}.`]
  }),
  where: onScene((rng, { items }) => {
    const item = rng.choice(items)
    return [`What is at the ${item.cell}?`, `${capital(withArticle(item))}.`]
  }),
  position: onScene(position),
  find: onScene(find),
  positions: quiz(0),
  quiz: quiz(0.5),
  background: onScene((_, { background }) => ['What color is the background?', `${capital(background)}.`]),
  video: movingShape,
  compare: comparison,
  hello: (rng) => ({
    turns: [
      [
        rng.choice(['Who are you?', 'What can you do?', 'Hello!']),
        'I am a very small InternVL. I describe shapes, count them and follow their movements.'
      ]
    ]
  })
}

const rawImage = (image: Rgb) => ({ ...image, channels: 3 as const })

/**
 * Conversation `index` about rendered scenes: coloured shapes to describe, count, name and find, backgrounds, two images to
 * compare, videos of a moving shape. The result depends on `seed` and `index` alone; the messages hold the images as raw pixels.
 */
export const sceneSample = (
  seed: number,
  index: number,
  weights: Readonly<Partial<Record<Task, number>>> = taskWeights
): DatasetRow => {
  const rng = random(seed, index)
  const task = rng.weighted(weights as Readonly<Record<Task, number>>)
  const { images = [], video: frames, turns } = sceneMakers[task](rng)
  const content: readonly ContentItem[] = [
    ...images.map((image): ContentItem => ({ type: 'image', image: rawImage(image) })),
    ...(frames ? [{ type: 'video', frames: frames.map(rawImage) } as const] : [])
  ]
  const messages = turns.flatMap(([question, answer], i): Messages => {
    const text = { type: 'text', text: question } as const
    return [
      { role: 'user', content: i === 0 ? [...content, text] : [text] },
      { role: 'assistant', content: answer }
    ]
  })
  const metric = turns.at(-1)![1].includes('<box>') ? 'mean-iou' : undefined
  return { id: String(index), task, messages, ...(metric ? { metric } : {}) }
}
