import { type Random, random } from '../../lib/random.js'
import type { Rgb } from '../../processors/image/resize.js'
import type { ContentItem } from '../../processors/text/messages.js'
import type { DatasetRow } from '../evaluate/eval-dataset.js'
import { type Colour, canvas, ellipse, polygon, rectangle } from './paint.js'

const colours = {
  red: [214, 40, 40],
  green: [40, 160, 70],
  blue: [40, 80, 210],
  yellow: [245, 205, 40],
  purple: [130, 60, 170],
  orange: [245, 130, 30],
  black: [25, 25, 25],
  pink: [245, 130, 180]
} as const satisfies Record<string, Colour>

const backgrounds = { white: [250, 250, 250], gray: [175, 175, 175], cream: [250, 238, 205] } as const satisfies Record<
  string,
  Colour
>

const cells = {
  'top left': [0.25, 0.25],
  'top right': [0.75, 0.25],
  'bottom left': [0.25, 0.75],
  'bottom right': [0.75, 0.75]
} as const

const shapes = ['circle', 'square', 'triangle', 'star'] as const
const numbers = ['zero', 'one', 'two', 'three', 'four'] as const

export type Shape = (typeof shapes)[number]
export type ColourName = keyof typeof colours
export type BackgroundName = keyof typeof backgrounds
type Cell = keyof typeof cells

/** Tasks, and the relative frequency of each. */
export const taskWeights = {
  describe: 5,
  count: 3,
  color: 3,
  where: 3,
  background: 1,
  video: 2,
  compare: 2,
  hello: 0.3
} as const

export type Task = keyof typeof taskWeights

const keys = <K extends string>(record: Readonly<Record<K, unknown>>): readonly K[] => Object.keys(record) as K[]

/** Corners of a star of radius `r` around a point. */
const star = (cx: number, cy: number, r: number) =>
  Array.from({ length: 10 }, (_, i) => {
    const [reach, angle] = [i % 2 === 0 ? r : r * 0.42, (Math.PI * i) / 5]
    return [cx + reach * Math.sin(angle), cy - reach * Math.cos(angle)] as const
  })

const triangle = (cx: number, cy: number, r: number) =>
  [
    [cx, cy - r],
    [cx - r, cy + r * 0.8],
    [cx + r, cy + r * 0.8]
  ] as const

/** Draws a shape of radius `r` pixels around a point. */
export const drawShape = (image: Rgb, shape: Shape, name: ColourName, cx: number, cy: number, r: number): void => {
  const [colour, side] = [colours[name], r * 0.85]
  if (shape === 'circle') ellipse(image, [cx - r, cy - r, cx + r, cy + r], colour)
  else if (shape === 'square') rectangle(image, [cx - side, cy - side, cx + side, cy + side], colour)
  else polygon(image, (shape === 'triangle' ? triangle : star)(cx, cy, r), colour)
}

/** An image filled with a background colour. */
export const ground = (width: number, height: number, name: BackgroundName): Rgb => canvas(width, height, backgrounds[name])

interface Item {
  readonly shape: Shape
  readonly colour: ColourName
  readonly cell: Cell
}

interface Scene {
  readonly image: Rgb
  readonly background: BackgroundName
  /** In the order of `cells`. */
  readonly items: readonly Item[]
}

const renderScene = (rng: Random): Scene => {
  const w = rng.integer(150, 420)
  const h = Math.trunc(w * rng.uniform(0.8, 1.25))
  const background = rng.choice(keys(backgrounds))
  const image = ground(w, h, background)
  const chosenCells = rng.shuffled(keys(cells)).slice(0, rng.choice([1, 1, 2, 2, 3, 4]))
  const items = chosenCells.map((cell): Item => {
    const [shape, colour, [fx, fy]] = [rng.choice(shapes), rng.choice(keys(colours)), cells[cell]]
    const r = Math.min(w, h) * rng.uniform(0.13, 0.2)
    drawShape(image, shape, colour, w * (fx + rng.uniform(-0.03, 0.03)), h * (fy + rng.uniform(-0.03, 0.03)), r)
    return { shape, colour, cell }
  })
  return { image, background, items: keys(cells).flatMap((cell) => items.filter((item) => item.cell === cell)) }
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)
const article = (word: string): string => (/^[aeiou]/.test(word) ? 'an' : 'a')
const withArticle = ({ shape, colour }: Item): string => `${article(colour)} ${colour} ${shape}`

const description = (items: readonly Item[]): string => {
  const parts = items.map((item) => `${withArticle(item)} at the ${item.cell}`)
  return `There is ${parts.length === 1 ? parts[0] : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`}.`
}

/** A rendered task: images or a video, the question and the correct answer. */
interface RenderedTask {
  readonly images?: readonly Rgb[]
  readonly video?: readonly Rgb[]
  readonly question: string
  readonly answer: string
}

const onScene =
  (questionAnswer: (rng: Random, scene: Scene) => readonly [question: string, answer: string]) =>
  (rng: Random): RenderedTask => {
    const scene = renderScene(rng)
    const [question, answer] = questionAnswer(rng, scene)
    return { images: [scene.image], question, answer }
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
  return { video: images, question, answer: `The ${colour} ${shape} moves ${direction}.` }
}

const comparison = (rng: Random): RenderedTask => {
  const [a, b] = [renderScene(rng), renderScene(rng)]
  const more = Math.sign(a.items.length - b.items.length)
  const answer = more > 0 ? 'The first one.' : more < 0 ? 'The second one.' : 'They have the same number.'
  return { images: [a.image, b.image], question: 'Which picture has more shapes?', answer }
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
  background: onScene((_, { background }) => ['What color is the background?', `${capital(background)}.`]),
  video: movingShape,
  compare: comparison,
  hello: (rng) => ({
    question: rng.choice(['Who are you?', 'What can you do?', 'Hello!']),
    answer: 'I am a very small InternVL. I describe shapes, count them and follow their movements.'
  })
}

const rawImage = (image: Rgb) => ({ ...image, channels: 3 as const })

/**
 * Conversation `index` about rendered scenes: coloured shapes to describe, count, name and locate, backgrounds, two images to compare,
 * videos of a moving shape. The result depends on `seed` and `index` alone; the messages hold the images as raw pixels.
 */
export const sceneSample = (
  seed: number,
  index: number,
  weights: Readonly<Partial<Record<Task, number>>> = taskWeights
): DatasetRow => {
  const rng = random(seed, index)
  const task = rng.weighted(weights as Readonly<Record<Task, number>>)
  const { images = [], video: frames, question, answer } = sceneMakers[task](rng)
  const content: readonly ContentItem[] = [
    ...images.map((image): ContentItem => ({ type: 'image', image: rawImage(image) })),
    ...(frames ? [{ type: 'video', frames: frames.map(rawImage) } as const] : []),
    { type: 'text', text: question }
  ]
  const messages = [
    { role: 'user', content },
    { role: 'assistant', content: answer }
  ] as const
  return { id: String(index), task, messages }
}
