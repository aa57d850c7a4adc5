import * as E from 'fp-ts/lib/Either.js'
import { drawBoxes, encodeThumbnail } from '../../processors/image/draw.js'
import { readImage } from '../../processors/image/image.js'
import { toPixels } from '../grounding.js'
import type { ChangedRow, Comparison, ScoreDifference } from './compare.js'
import type { EvaluatedRow } from './evaluated-row.js'
import { type EvaluationSummary, percent } from './evaluation-summary.js'
import { boxesOf } from './metrics/box-metrics.js'

/** Longer side of an image in a report, in pixels, and images shown of one row. */
const [side, most] = [320, 8]

const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (c) => `&#${c.codePointAt(0)};`)

const style = `
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .4em .7em; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd }
td.number { text-align: right; font-variant-numeric: tabular-nums } td pre { margin: 0; white-space: pre-wrap; font: inherit; max-width: 28em }
img { max-width: ${side}px; margin: 0 .3em .3em 0 } tr.wrong td.score { background: #fbe3e3 } tr.right td.score { background: #e2f4e2 }
#wrong:checked ~ table.rows tr.right, #right:checked ~ table.rows tr.wrong { display: none }`

const page = (title: string, body: string): string =>
  `<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>${escapeHtml(title)}</title><style>${style}</style></head>
<body><h1>${escapeHtml(title)}</h1>\n${body}\n</body></html>\n`

const cell = (text: string): string => `<td><pre>${escapeHtml(text)}</pre></td>`
const numberCell = (text: string): string => `<td class="number">${escapeHtml(text)}</td>`
const head = (...names: readonly string[]): string => `<tr>${names.map((name) => `<th>${escapeHtml(name)}</th>`).join('')}</tr>`

/** Boxes of an answer and of the expected answer, with their labels. */
const boxesFor = (texts: Readonly<Record<string, string>>) =>
  Object.entries(texts).map(([label, text]) => ({ label, boxes: boxesOf(text) }))

/** An image as a data URL, with boxes where there are any; the name of a source that is no readable image. */
const imageHtml = async (source: string, texts: Readonly<Record<string, string>>): Promise<string> => {
  const image = await readImage(source)()
  if (E.isLeft(image)) return `<p>${escapeHtml(source.slice(0, 200))}</p>`
  const boxes = toPixels(boxesFor(texts), image.right)
  const withBoxes = boxes.length > 0 ? await drawBoxes(image.right, boxes) : image.right
  const jpeg = await encodeThumbnail(withBoxes, side)
  return `<img loading="lazy" alt="" src="data:image/jpeg;base64,${jpeg.toString('base64')}">`
}

const imagesCell = async (media: readonly string[], texts: Readonly<Record<string, string>>): Promise<string> => {
  const images: string[] = []
  for (const source of media.slice(0, most)) images.push(await imageHtml(source, texts))
  const more = media.length > most ? `<p>${media.length - most} more</p>` : ''
  return `<td>${images.join('')}${more}</td>`
}

const rowHtml = async (row: EvaluatedRow): Promise<string> => {
  const { answer, expected, answers, media, score, correct } = row
  const hasBoxes = /iou/.test(row.metric)
  const images = await imagesCell(media, hasBoxes ? { answer, expected } : {})
  const cells = [numberCell(`${row.row + 1}`), cell(`${row.id}\n${row.task}`), images, cell(row.question), cell(answer)]
  const references = cell((answers ?? [expected]).join('\n'))
  return `<tr class="${correct ? 'right' : 'wrong'}">${cells.join('')}${references}<td class="number score">${score.toFixed(2)}</td></tr>`
}

const summaryHtml = ({ scores, tasks, all, confidence }: EvaluationSummary): string => {
  const rows = scores.map(({ task, metrics, mean, low, high }) => {
    const { right, rows } = tasks[task] ?? all
    const numbers = [`${right}/${rows}`, percent(mean), `${percent(low)} to ${percent(high)}`].map(numberCell)
    return `<tr>${cell(task)}${numbers.join('')}${cell(metrics.join(', '))}</tr>`
  })
  return `<table>${head('task', 'right', 'score', `${100 * confidence} % interval`, 'metric')}${rows.join('')}</table>`
}

/** Radio buttons that show all rows, wrong ones or right ones, without a script. */
const filter = ['all', 'wrong', 'right']
  .map((id, i) => `<input type="radio" name="rows" id="${id}"${i === 0 ? ' checked' : ''}><label for="${id}">${id}</label>`)
  .join('\n')

/**
 * An evaluation as one HTML file: scores by task, and every row with its images, question, answer, references and score. Images are reduced
 * and embedded; and show the boxes of box metrics.
 */
export const evaluationReport = async (
  title: string,
  { rows, summary }: { readonly rows: readonly EvaluatedRow[]; readonly summary: EvaluationSummary }
): Promise<string> => {
  const lines: string[] = []
  for (const row of rows) lines.push(await rowHtml(row))
  const names = head('row', 'id and task', 'images', 'question', 'answer', 'expected', 'score')
  return page(title, `${summaryHtml(summary)}\n${filter}\n<table class="rows">${names}\n${lines.join('\n')}</table>`)
}

const differenceHtml = ({ task, rows, a, b, difference, low, high, better, worse, test }: ScoreDifference): string => {
  const interval = `${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)}`
  const numbers = [
    `${rows}`,
    percent(a),
    percent(b),
    (100 * difference).toFixed(1),
    interval,
    `${better}`,
    `${worse}`,
    test.p.toPrecision(3)
  ]
  return `<tr>${cell(task)}${numbers.map(numberCell).join('')}${cell(test.name)}</tr>`
}

const changedHtml = async ({ row, id, task, media, question, expected, answers, scores }: ChangedRow): Promise<string> => {
  const kind = scores.b > scores.a ? 'right' : 'wrong'
  const images = await imagesCell(media, {})
  const cells = [
    numberCell(`${row + 1}`),
    cell(`${id}\n${task}`),
    images,
    ...[question, expected, answers.a, answers.b].map(cell)
  ]
  const change = `${scores.a.toFixed(2)} to ${scores.b.toFixed(2)}`
  return `<tr class="${kind}">${cells.join('')}<td class="number score">${change}</td></tr>`
}

/** A comparison as one HTML file: differences by task, and every row with another score, with its images. */
export const comparisonReport = async (title: string, { all, tasks, changed, otherAnswers }: Comparison): Promise<string> => {
  const lines: string[] = []
  for (const row of changed) lines.push(await changedHtml(row))
  const names = head('task', 'rows', 'a', 'b', 'points', 'interval', 'better', 'worse', 'p', 'test')
  const rowNames = head('row', 'id and task', 'images', 'question', 'expected', 'a', 'b', 'score')
  const note = `<p>${changed.length} rows have another score, ${otherAnswers} more another answer of the same score.</p>`
  const table = `<table>${names}${[...tasks, all].map(differenceHtml).join('')}</table>`
  return page(title, `${table}\n${note}\n<table class="rows">${rowNames}\n${lines.join('\n')}</table>`)
}
