import { encodePng } from '../../processors/image/draw.js'
import type { Rgb } from '../../processors/image/resize.js'
import { imageStrip } from '../../processors/image/strip.js'
import type { ExplainedPart, Explanation } from './explain.js'

/** Stops of the colour scale from 0 to 1: blue, cyan, yellow, red. */
const stops = [
  [30, 40, 150],
  [0, 190, 230],
  [255, 225, 40],
  [220, 20, 20]
] as const

/** A colour channel of the scale at `v`, from 0 to 1. */
const scaleAt = (v: number, channel: number): number => {
  const at = Math.min(1, Math.max(0, v)) * (stops.length - 1)
  const i = Math.min(stops.length - 2, Math.floor(at))
  return stops[i]![channel]! + (stops[i + 1]![channel]! - stops[i]![channel]!) * (at - i)
}

/** The image in gray under the colours of a map, which is relative to its largest value. */
export const heatImage = async ({ data, width, height }: Rgb, { map }: ExplainedPart): Promise<Rgb> => {
  const values = (await map.data()) as Float32Array
  const most = values.reduce((a, b) => Math.max(a, b), 0) || 1
  const blended = new Uint8Array(width * height * 3)
  for (let i = 0; i < width * height; i++) {
    const v = values[i]! / most
    const gray = 0.3 * data[3 * i]! + 0.59 * data[3 * i + 1]! + 0.11 * data[3 * i + 2]!
    const alpha = 0.25 + 0.6 * v
    for (let c = 0; c < 3; c++) blended[3 * i + c] = Math.round((1 - alpha) * gray + alpha * scaleAt(v, c))
  }
  return { data: blended, width, height }
}

/** The heat map of one part over the image, as PNG. */
export const heatPng = async (explanation: Explanation, part: ExplainedPart): Promise<Buffer> =>
  encodePng(await heatImage(explanation.image, part))

/** The image, then the map of each part, side by side with their texts below. */
export const heatStrip = async ({ image, parts }: Explanation): Promise<Rgb> => {
  const panels = await Promise.all(parts.map(async (part) => ({ image: await heatImage(image, part), label: part.text })))
  return imageStrip([{ image, label: '' }, ...panels])
}
