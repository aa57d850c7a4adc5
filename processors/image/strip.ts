import sharp from 'sharp'
import type { Rgb } from './resize.js'

/** An image with the text below. */
export interface Panel {
  readonly image: Rgb
  readonly label: string
}

const [panelHeight, labelHeight, gap] = [224, 32, 8]
/** Panels of one row; more rows follow below. */
const panelsPerRow = 8

/** A text for XML; control characters become spaces. */
export const escapeXml = (text: string): string =>
  text.replace(/[&<>"']/g, (c) => `&#${c.codePointAt(0)};`).replace(/\p{Cc}/gu, ' ')

const labelSvg = (label: string, width: number): Buffer =>
  Buffer.from(
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${labelHeight}"><text x="${width / 2}" y="22" font-family="sans-serif" font-size="18" text-anchor="middle">${escapeXml(label)}</text></svg>`
  )

/** Panels side by side on white, each 224 pixels high with its label below, at most eight in a row. */
export const imageStrip = async (panels: readonly Panel[]): Promise<Rgb> => {
  const sized = await Promise.all(
    panels.map(async ({ image: { data, width, height }, label }) => {
      const panelWidth = Math.max(16, Math.round((panelHeight * width) / height))
      const raw = sharp(data, { raw: { width, height, channels: 3 } })
      const input = await raw.resize(panelWidth, panelHeight, { fit: 'fill' }).png().toBuffer()
      return { input, width: panelWidth, label }
    })
  )
  const rows = Array.from({ length: Math.ceil(sized.length / panelsPerRow) }, (_, i) =>
    sized.slice(i * panelsPerRow, (i + 1) * panelsPerRow)
  )
  const rowHeight = panelHeight + labelHeight + gap
  const overlays = rows.flatMap((row, r) =>
    row.flatMap(({ input, width, label }, i) => {
      const left = gap + row.slice(0, i).reduce((sum, panel) => sum + panel.width + gap, 0)
      const top = gap + r * rowHeight
      const text = label.trim() === '' ? [] : [{ input: labelSvg(label, width), left, top: top + panelHeight }]
      return [{ input, left, top }, ...text]
    })
  )
  const width = Math.max(...rows.map((row) => gap + row.reduce((sum, panel) => sum + panel.width + gap, 0)))
  const height = gap + rows.length * rowHeight
  const canvas = sharp({ create: { width, height, channels: 3, background: '#ffffff' } }).composite(overlays)
  const { data } = await canvas.removeAlpha().raw().toBuffer({ resolveWithObject: true })
  return { data: new Uint8Array(data), width, height }
}
