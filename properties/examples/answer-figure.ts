import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import { groundedText, parseGrounding, toPixels } from '../../generation/grounding.js'
import { answer, load } from '../../generation/root.js'
import { shapes } from './demo-files.js'

// Writes docs/images/answers.png: an image of the demo model, questions, and the answers that the model gives now, with the boxes that it finds
// (`npm run docs:figure`).

const questions = ['Describe the image.', 'How many triangles are there?', 'What is at the top right?', 'Find the green circle.']
const [width, side, font] = [1000, 300, 'font-family="DejaVu Sans, Arial, sans-serif" font-size="21"']

/** Lines of at most 60 characters. */
const wrapped = (sentence: string): readonly string[] => sentence.match(/.{1,60}(?=\s|$)/g)?.map((line) => line.trim()) ?? []

const internvl = await load()
const ask = (question: string) => [{ role: 'user', content: [{ type: 'image', path: shapes }, { type: 'text', text: question }] }] as const // biome-ignore format: one line
const { result } = await answer(internvl, questions.map(ask))
const texts = result.sequences.map((ids) => groundedText(internvl.processor.tokenizer, ids).trim())
const { width: w, height: h } = await sharp(shapes).metadata()
const boxes = texts.flatMap((text) => toPixels(parseGrounding(text).groundings, { width: w, height: h }))
internvl.dispose()
const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
const rows = questions.flatMap((question, i) => [
  { text: question, style: 'font-weight="bold" fill="#1f2937"', space: i === 0 ? 26 : 50 },
  ...wrapped(texts[i]!).map((line) => ({ text: line, style: 'fill="#15803d"', space: 32 }))
])
const bottoms = rows.map((_, i) => 20 + rows.slice(0, i + 1).reduce((sum, { space }) => sum + space, 0))
const lines = rows.map((row, i) => `<text x="${side + 60}" y="${bottoms[i]}" ${font} ${row.style}>${escaped(row.text)}</text>`)
const height = Math.max(side + 40, bottoms.at(-1)! + 30)
const stroke = 'fill="none" stroke="#dc2626" stroke-width="3"'
const rectangleOf = ({ left: x, top: y, right, bottom }: (typeof boxes)[number]): string =>
  `<rect x="${x}" y="${y}" width="${right - x}" height="${bottom - y}" ${stroke}/>`
const inner = `<image width="${w}" height="${h}" href="data:image/png;base64,${readFileSync(shapes).toString('base64')}"/>`
const image = `<svg x="20" y="20" width="${side}" height="${side}" viewBox="0 0 ${w} ${h}">${inner}${boxes.map(rectangleOf).join('')}</svg>`
const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"><rect width="100%" height="100%" fill="#f9fafb"/>${image}${lines.join('')}</svg>`
const file = fileURLToPath(new URL('../../docs/images/answers.png', import.meta.url))
writeFileSync(file, await sharp(Buffer.from(svg)).png({ palette: true }).toBuffer())
console.log(`${file}: ${texts.join(' | ')}`)
