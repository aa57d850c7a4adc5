import type { Random } from '../../lib/random.js'
import type { Rgb } from '../../processors/image/resize.js'
import type { Corners } from '../grounding.js'
import { type Colour, canvas, ellipse, polygon, rectangle } from './paint.js'

export const colours = {
  red: [214, 40, 40],
  green: [40, 160, 70],
  blue: [40, 80, 210],
  yellow: [245, 205, 40],
  purple: [130, 60, 170],
  orange: [245, 130, 30],
  black: [25, 25, 25],
  pink: [245, 130, 180]
} as const satisfies Record<string, Colour>

export const backgrounds = { white: [250, 250, 250], gray: [175, 175, 175], cream: [250, 238, 205] } as const satisfies Record<
  string,
  Colour
>

const cells = {
  'top left': [0.25, 0.25],
  'top right': [0.75, 0.25],
  'bottom left': [0.25, 0.75],
  'bottom right': [0.75, 0.75]
} as const

export const shapes = ['circle', 'square', 'triangle', 'star'] as const

export type Shape = (typeof shapes)[number]
export type ColourName = keyof typeof colours
export type BackgroundName = keyof typeof backgrounds
type Cell = keyof typeof cells

/** The keys of a record. */
export const keys = <K extends string>(record: Readonly<Record<K, unknown>>): readonly K[] => Object.keys(record) as K[]

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

/** Distances of the outermost pixels from the centre, as multiples of the radius: left, top, right, bottom. */
const extents: Readonly<Record<Shape, Corners>> = {
  circle: [1, 1, 1, 1],
  square: [0.85, 0.85, 0.85, 0.85],
  triangle: [1, 1, 1, 0.8],
  star: [Math.sin(0.4 * Math.PI), 1, Math.sin(0.4 * Math.PI), Math.cos(0.2 * Math.PI)]
}

/** The box of a shape in thousandths of the image's size, rounded to tens. */
const boxOf = ({ width, height }: Rgb, shape: Shape, cx: number, cy: number, r: number): Corners => {
  const [left, top, right, bottom] = extents[shape]
  const tens = (pixels: number, size: number): number => 10 * Math.round((100 * pixels) / size)
  return [tens(cx - left * r, width), tens(cy - top * r, height), tens(cx + right * r, width), tens(cy + bottom * r, height)]
}

/** An image filled with a background colour. */
export const ground = (width: number, height: number, name: BackgroundName): Rgb => canvas(width, height, backgrounds[name])

/** The name of a shape, such as "red circle". */
export interface Name {
  readonly shape: Shape
  readonly colour: ColourName
}

export interface Item extends Name {
  readonly cell: Cell
  readonly box: Corners
}

export interface Scene {
  readonly image: Rgb
  readonly background: BackgroundName
  /** In the order of `cells`. */
  readonly items: readonly Item[]
}

/** Width and height: seven of ten scenes are nearly square, the rest wide or tall, which processors cut into two tiles. */
const sceneSize = (rng: Random, mayBeLong: boolean): readonly [width: number, height: number] => {
  const [side, u] = [rng.integer(150, 420), rng.uniform()]
  if (!mayBeLong) return [side, Math.trunc(side * (0.8 + 0.45 * u))]
  if (u < 0.7) return [side, Math.trunc(side * (0.8 + (0.45 * u) / 0.7))]
  return u < 0.85 ? [side, Math.trunc(side * (u - 0.25))] : [Math.trunc(side * (u - 0.4)), side]
}

export interface SceneOptions {
  /** Whether three in ten scenes are wide or tall. */
  readonly mayBeLong?: boolean
  /** Numbers of shapes, of which one is chosen at random. */
  readonly counts?: readonly number[]
  /** Probability that a shape has the colour and the form of the shape before. */
  readonly repeats?: number
}

/** A scene of shapes, each in a quarter of the image of its own. */
export const renderScene = (rng: Random, options: SceneOptions = {}): Scene => {
  const { mayBeLong = false, counts = [1, 1, 2, 2, 3, 4], repeats = 0 } = options
  const [w, h] = sceneSize(rng, mayBeLong)
  const background = rng.choice(keys(backgrounds))
  const image = ground(w, h, background)
  const chosenCells = rng.shuffled(keys(cells)).slice(0, rng.choice(counts))
  let last: Name | undefined
  const items = chosenCells.map((cell): Item => {
    const name = last && rng.uniform() < repeats ? last : { shape: rng.choice(shapes), colour: rng.choice(keys(colours)) }
    last = name
    const { shape, colour } = name
    const [fx, fy] = cells[cell]
    const r = Math.min(w, h) * rng.uniform(0.13, 0.2)
    const [cx, cy] = [w * (fx + rng.uniform(-0.03, 0.03)), h * (fy + rng.uniform(-0.03, 0.03))]
    drawShape(image, shape, colour, cx, cy, r)
    return { shape, colour, cell, box: boxOf(image, shape, cx, cy, r) }
  })
  return { image, background, items: keys(cells).flatMap((cell) => items.filter((item) => item.cell === cell)) }
}
